"""secrets"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("key_name", sa.Text(), nullable=False),
        sa.Column("encrypted_value", sa.Text(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_secrets_account_id_accounts")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_secrets")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_secrets_account_id_id")),
    )
    op.add_column(
        "accounts",
        sa.Column("suspend_state", sa.String(length=40), server_default="UNSUSPENDED", nullable=False),
    )
    op.add_column(
        "api_keys",
        sa.Column(
            "annotations", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
    )
    op.drop_constraint("uq_users_account_id_email", "users", type_="unique")
    tell_users_apart()
    op.create_index(
        "uq_users_account_id_lower_email", "users", ["account_id", sa.text("lower(email)")], unique=True
    )
    op.add_column(
        "audit_logs",
        sa.Column("status_code", sa.String(length=40), server_default="OK", nullable=False),
    )
    op.add_column("audit_logs", sa.Column("status_message", sa.Text(), server_default="", nullable=False))
    op.create_index("ix_audit_logs_create_time", "audit_logs", ["create_time"], unique=False)


def tell_users_apart() -> None:
    """Of users whose addresses differ in their case only, the first keeps its own; the others' say the id."""
    op.execute(
        "UPDATE users SET email = split_part(email, '@', 1) || '+' || id || '@' || split_part(email, '@', 2) "
        "FROM (SELECT uid, row_number() OVER "
        "(PARTITION BY account_id, lower(email) ORDER BY create_time, uid) AS place FROM users) AS known "
        "WHERE known.uid = users.uid AND known.place > 1"
    )


def downgrade() -> None:
    op.drop_index("ix_audit_logs_create_time", table_name="audit_logs")
    op.drop_column("audit_logs", "status_message")
    op.drop_column("audit_logs", "status_code")
    op.drop_index("uq_users_account_id_lower_email", table_name="users")
    op.create_unique_constraint("uq_users_account_id_email", "users", ["account_id", "email"])
    op.drop_column("api_keys", "annotations")
    op.drop_column("accounts", "suspend_state")
    op.drop_table("secrets")
