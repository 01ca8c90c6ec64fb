"""identity providers and signed-in sessions"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_providers",
        sa.Column("issuer_url", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_secret", sa.Text(), nullable=False),
        sa.Column("enforce_sso", sa.Boolean(), nullable=False),
        sa.Column("enable_jit_user_provisioning", sa.Boolean(), nullable=False),
        sa.Column("default_role", sa.String(length=40), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_identity_providers_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_identity_providers")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_identity_providers_account_id_id")),
    )
    op.create_table(
        "tenant_domains",
        sa.Column("domain", sa.String(length=253), nullable=False),
        sa.Column("provider_uid", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_uid"],
            ["identity_providers.uid"],
            name=op.f("fk_tenant_domains_provider_uid_identity_providers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("domain", name=op.f("pk_tenant_domains")),
    )
    op.create_index(op.f("ix_tenant_domains_provider_uid"), "tenant_domains", ["provider_uid"], unique=False)
    op.create_table(
        "sign_ins",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("provider_uid", sa.Uuid(), nullable=False),
        sa.Column("handle_hash", sa.String(length=64), nullable=False),
        sa.Column("client_address", sa.String(length=64), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("device_code", sa.Text(), nullable=False),
        sa.Column("interval", sa.Integer(), nullable=False),
        sa.Column("next_poll_time", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_uid"],
            ["identity_providers.uid"],
            name=op.f("fk_sign_ins_provider_uid_identity_providers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("handle_hash", name=op.f("uq_sign_ins_handle_hash")),
    )
    op.create_index(op.f("ix_sign_ins_client_address"), "sign_ins", ["client_address"], unique=False)
    op.create_index(op.f("ix_sign_ins_expire_time"), "sign_ins", ["expire_time"], unique=False)
    op.create_index(op.f("ix_sign_ins_provider_uid"), "sign_ins", ["provider_uid"], unique=False)
    op.create_table(
        "user_sessions",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("provider_uid", sa.Uuid(), nullable=False),
        sa.Column("family_hash", sa.String(length=64), nullable=False),
        sa.Column("refresh_hash", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("provider_refresh_token", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refresh_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_uid"],
            ["identity_providers.uid"],
            name=op.f("fk_user_sessions_provider_uid_identity_providers"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_uid"], ["users.uid"], name=op.f("fk_user_sessions_user_uid_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_user_sessions")),
        sa.UniqueConstraint("family_hash", name=op.f("uq_user_sessions_family_hash")),
    )
    op.create_index(op.f("ix_user_sessions_expire_time"), "user_sessions", ["expire_time"], unique=False)
    op.create_index(op.f("ix_user_sessions_provider_uid"), "user_sessions", ["provider_uid"], unique=False)
    op.create_index(op.f("ix_user_sessions_user_uid"), "user_sessions", ["user_uid"], unique=False)
    op.create_table(
        "user_identities",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_uid"], ["users.uid"], name=op.f("fk_user_identities_user_uid_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_user_identities")),
        sa.UniqueConstraint(
            "account_id", "issuer", "subject", name=op.f("uq_user_identities_account_id_issuer_subject")
        ),
        sa.UniqueConstraint("user_uid", "issuer", name=op.f("uq_user_identities_user_uid_issuer")),
    )
    op.add_column("api_keys", sa.Column("session_uid", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_api_keys_session_uid_user_sessions"),
        "api_keys",
        "user_sessions",
        ["session_uid"],
        ["uid"],
        ondelete="CASCADE",
    )
    op.create_index(op.f("ix_api_keys_session_uid"), "api_keys", ["session_uid"], unique=False)


def downgrade() -> None:
    # Tokens of sessions would turn into keys that nobody can see.
    op.execute("DELETE FROM api_keys WHERE session_uid IS NOT NULL")
    op.drop_index(op.f("ix_api_keys_session_uid"), table_name="api_keys")
    op.drop_constraint(op.f("fk_api_keys_session_uid_user_sessions"), "api_keys", type_="foreignkey")
    op.drop_column("api_keys", "session_uid")
    op.drop_table("user_identities")
    op.drop_index(op.f("ix_user_sessions_user_uid"), table_name="user_sessions")
    op.drop_index(op.f("ix_user_sessions_provider_uid"), table_name="user_sessions")
    op.drop_index(op.f("ix_user_sessions_expire_time"), table_name="user_sessions")
    op.drop_table("user_sessions")
    op.drop_index(op.f("ix_sign_ins_provider_uid"), table_name="sign_ins")
    op.drop_index(op.f("ix_sign_ins_expire_time"), table_name="sign_ins")
    op.drop_index(op.f("ix_sign_ins_client_address"), table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_index(op.f("ix_tenant_domains_provider_uid"), table_name="tenant_domains")
    op.drop_table("tenant_domains")
    op.drop_table("identity_providers")
