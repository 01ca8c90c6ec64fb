"""a smaller model may guess ahead for a deployment"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

NAMES = (
    ("deployments", "draft_model"),
    ("deployment_shapes", "draft_model"),
    ("models", "default_draft_model"),
)
KEY, INDEX = "fk_deployments_draft_model_uid_models", "ix_deployments_draft_model_uid"


def upgrade() -> None:
    for table, name in NAMES:
        op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=""))
    count = sa.Column("default_draft_token_count", sa.Integer(), nullable=False, server_default="0")
    op.add_column("models", count)
    op.add_column("deployments", sa.Column("draft_model_uid", sa.Uuid(), nullable=True))
    op.create_foreign_key(KEY, "deployments", "models", ["draft_model_uid"], ["uid"], ondelete="SET NULL")
    op.create_index(INDEX, "deployments", ["draft_model_uid"])


def downgrade() -> None:
    op.drop_index(INDEX, table_name="deployments")
    op.drop_constraint(KEY, "deployments", type_="foreignkey")
    op.drop_column("deployments", "draft_model_uid")
    op.drop_column("models", "default_draft_token_count")
    for table, name in reversed(NAMES):
        op.drop_column(table, name)
