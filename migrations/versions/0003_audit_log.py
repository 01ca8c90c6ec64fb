"""the audit log"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_logs",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user_id", sa.String(length=63), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(length=63), nullable=False),
        sa.Column("action", sa.String(length=80), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("client_address", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_audit_logs")),
    )
    op.create_index(
        "ix_audit_logs_account_id_create_time",
        "audit_logs",
        ["account_id", "create_time", "uid"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("ix_audit_logs_account_id_create_time", table_name="audit_logs")
    op.drop_table("audit_logs")
