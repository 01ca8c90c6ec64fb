"""responses that are kept"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("previous_id", sa.String(length=63), nullable=True),
        sa.Column("input", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_responses")),
    )
    op.create_index("ix_responses_account_id_create_time", "responses", ["account_id", "create_time", "id"])
    op.create_index("ix_responses_create_time", "responses", ["create_time"])


def downgrade() -> None:
    op.drop_table("responses")
