"""accounts remember their turn, and jobs what of them is metered and the place that they still have"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0015"
branch_labels = None
depends_on = None

JOBS = "fine_tuning_jobs"
PLACED = "state IN ('RUNNING', 'RE_QUEUEING', 'PAUSING', 'CANCELLING')"
MAY_BE_PLACED = "state IN ('RUNNING', 'RE_QUEUEING', 'PAUSING', 'CANCELLING', 'RESUMING', 'DELETING')"
TURN_INDEX = "ix_fine_tuning_jobs_account_id_place_time"
PLACED_INDEX = "ix_fine_tuning_jobs_placed"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("place_time", sa.DateTime(timezone=True), nullable=True))
    newest = f"SELECT max(place_time) FROM {JOBS} WHERE account_id = accounts.id"
    op.execute(f"UPDATE accounts SET place_time = ({newest})")
    op.drop_index(TURN_INDEX, table_name=JOBS)
    op.execute(f"UPDATE {JOBS} SET place_time = NULL WHERE NOT {MAY_BE_PLACED}")
    create_placed_index(MAY_BE_PLACED)
    op.add_column(JOBS, sa.Column("metered_tokens", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column(JOBS, "metered_tokens")
    create_placed_index(PLACED)
    op.execute(f"UPDATE {JOBS} SET place_time = start_time WHERE place_time IS NULL")
    op.create_index(TURN_INDEX, JOBS, ["account_id", "place_time"])
    op.drop_column("accounts", "place_time")


def create_placed_index(condition: str) -> None:
    op.drop_index(PLACED_INDEX, table_name=JOBS)
    op.create_index(PLACED_INDEX, JOBS, ["account_id"], postgresql_where=sa.text(condition))
