"""indexes for lists"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The order by name has its index already: the unique one on the account and the id.
BY_TIME = {
    "models": ["account_id", "create_time", "uid"],
    "datasets": ["account_id", "create_time", "uid"],
    "deployments": ["account_id", "create_time", "uid"],
    "deployed_models": ["account_id", "create_time", "uid"],
    "fine_tuning_jobs": ["account_id", "collection", "create_time", "uid"],
}
# Of one state, in the collection's own order.
BY_STATE = {
    "models": ["account_id", "state", "id"],
    "datasets": ["account_id", "state", "id"],
    "deployments": ["account_id", "state", "create_time", "uid"],
    "deployed_models": ["account_id", "state", "id"],
}


def upgrade() -> None:
    for table, columns in BY_TIME.items():
        op.create_index(f"ix_{table}_account_id_create_time", table, columns, unique=False)
    for table, columns in BY_STATE.items():
        op.create_index(f"ix_{table}_account_id_state", table, columns, unique=False)


def downgrade() -> None:
    for table in BY_STATE:
        op.drop_index(f"ix_{table}_account_id_state", table_name=table)
    for table in BY_TIME:
        op.drop_index(f"ix_{table}_account_id_create_time", table_name=table)
