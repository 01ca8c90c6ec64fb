"""quotas, reservations and the ledger"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=True),
        sa.Column("max_value", sa.BigInteger(), nullable=True),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_quotas_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_quotas")),
    )
    op.create_table(
        "reservations",
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("accelerator_type", sa.String(length=60), nullable=False),
        sa.Column("reserved_count", sa.Integer(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("multi_region", sa.Text(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_reservations_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_reservations")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_reservations_account_id_id")),
    )
    op.create_table(
        "spend",
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", "account_id", "resource", name=op.f("pk_spend")),
    )
    rename_usage("usage", "ledger")
    for column in new_columns():
        op.add_column("ledger", column)
    op.execute("UPDATE ledger SET owner_id = split_part(deployment, '/', 2)")
    op.create_index(
        "ix_ledger_owner_id_create_time",
        "ledger",
        ["owner_id", "create_time"],
        postgresql_where=sa.text("owner_id <> account_id"),
    )
    op.create_index(
        "ix_ledger_deployment_create_time",
        "ledger",
        ["deployment", "create_time"],
        postgresql_where=sa.text("product = 'deployment'"),
    )
    op.create_index(
        "ix_ledger_account_id_create_time_reserved",
        "ledger",
        ["account_id", "create_time"],
        postgresql_where=sa.text("reserved_count > 0"),
    )
    op.add_column("replicas", sa.Column("serving_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "replicas",
        sa.Column(
            "accelerator_type",
            sa.String(length=60),
            server_default="ACCELERATOR_TYPE_UNSPECIFIED",
            nullable=False,
        ),
    )
    op.add_column(
        "replicas", sa.Column("accelerator_count", sa.Integer(), server_default="0", nullable=False)
    )


def new_columns() -> list[sa.Column[object]]:
    """What an entry says besides what a row of usage said; each row of usage becomes an entry."""
    columns: list[sa.Column[object]] = [
        sa.Column("owner_id", sa.String(length=63), server_default="", nullable=False),
        sa.Column("product", sa.String(length=20), server_default="inference", nullable=False),
        sa.Column("job", sa.Text(), server_default="", nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("accelerator_type", sa.String(length=60), nullable=True),
        sa.Column("accelerator_count", sa.Integer(), nullable=True),
        sa.Column("reserved_count", sa.Integer(), nullable=True),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cost_nanos", sa.BigInteger(), server_default="0", nullable=False),
    ]
    return columns


def rename_usage(old: str, new: str) -> None:
    op.rename_table(old, new)
    op.execute(f"ALTER INDEX pk_{old} RENAME TO pk_{new}")
    op.execute(f"ALTER INDEX ix_{old}_account_id_create_time RENAME TO ix_{new}_account_id_create_time")


def downgrade() -> None:
    op.drop_column("replicas", "accelerator_count")
    op.drop_column("replicas", "accelerator_type")
    op.drop_column("replicas", "serving_since")
    op.drop_index("ix_ledger_account_id_create_time_reserved", table_name="ledger")
    op.drop_index("ix_ledger_deployment_create_time", table_name="ledger")
    op.drop_index("ix_ledger_owner_id_create_time", table_name="ledger")
    op.execute("DELETE FROM ledger WHERE product <> 'inference'")
    for column in reversed(new_columns()):
        op.drop_column("ledger", column.name)
    rename_usage("ledger", "usage")
    op.drop_table("spend")
    op.drop_table("reservations")
    op.drop_table("quotas")
