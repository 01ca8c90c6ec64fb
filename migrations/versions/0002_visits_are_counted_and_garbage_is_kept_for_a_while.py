"""visits are counted and garbage is kept for a while"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LEASED = ("models", "datasets", "fine_tuning_jobs", "deployments")


def upgrade() -> None:
    for table in LEASED:
        op.add_column(table, sa.Column("lease_claims", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "garbage",
        sa.Column("due_time", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.create_index(op.f("ix_garbage_due_time"), "garbage", ["due_time"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_garbage_due_time"), table_name="garbage")
    op.drop_column("garbage", "due_time")
    for table in LEASED:
        op.drop_column(table, "lease_claims")
