"""inspections of datasets"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inspections",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("dataset_uid", sa.Uuid(), nullable=False),
        sa.Column("evaluation_dataset_uid", sa.Uuid(), nullable=True),
        sa.Column("base_model_uid", sa.Uuid(), nullable=False),
        sa.Column("warm_start_uid", sa.Uuid(), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("first_row", sa.Integer(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_reconcile_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_claims", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_inspections_account_id_accounts")
        ),
        *(
            sa.ForeignKeyConstraint(
                [column],
                [f"{table}.uid"],
                name=op.f(f"fk_inspections_{column}_{table}"),
                ondelete="CASCADE",
            )
            for column, table in (
                ("dataset_uid", "datasets"),
                ("evaluation_dataset_uid", "datasets"),
                ("base_model_uid", "models"),
                ("warm_start_uid", "models"),
            )
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_inspections")),
        sa.UniqueConstraint("account_id", "key", name=op.f("uq_inspections_account_id_key")),
    )
    for column in ("base_model_uid", "dataset_uid", "next_reconcile_at"):
        op.create_index(op.f(f"ix_inspections_{column}"), "inspections", [column])


def downgrade() -> None:
    op.drop_table("inspections")
