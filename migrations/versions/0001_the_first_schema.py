"""the first schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("account_type", sa.String(length=40), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "garbage",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_garbage")),
    )
    op.create_table(
        "usage",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("user_id", sa.String(length=63), nullable=False),
        sa.Column("key_id", sa.String(length=63), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.String(length=40), nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_usage")),
    )
    op.create_index("ix_usage_account_id_create_time", "usage", ["account_id", "create_time"], unique=False)
    op.create_table(
        "datasets",
        sa.Column("format", sa.String(length=40), nullable=False),
        sa.Column("example_count", sa.BigInteger(), nullable=False),
        sa.Column("estimated_token_count", sa.BigInteger(), nullable=False),
        sa.Column("average_turn_count", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("files", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_reconcile_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_datasets_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_datasets")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_datasets_account_id_id")),
    )
    op.create_index(op.f("ix_datasets_next_reconcile_at"), "datasets", ["next_reconcile_at"], unique=False)
    op.create_table(
        "models",
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("github_url", sa.Text(), nullable=False),
        sa.Column("hugging_face_url", sa.Text(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("context_length", sa.Integer(), nullable=False),
        sa.Column("supports_image_input", sa.Boolean(), nullable=False),
        sa.Column("supports_tools", sa.Boolean(), nullable=False),
        sa.Column("base_model_uid", sa.Uuid(), nullable=True),
        sa.Column("fine_tuning_job", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("files", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("conversation_config", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("problems", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_reconcile_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_models_account_id_accounts")),
        sa.ForeignKeyConstraint(
            ["base_model_uid"], ["models.uid"], name=op.f("fk_models_base_model_uid_models")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_models")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_models_account_id_id")),
    )
    op.create_index(op.f("ix_models_base_model_uid"), "models", ["base_model_uid"], unique=False)
    op.create_index(op.f("ix_models_next_reconcile_at"), "models", ["next_reconcile_at"], unique=False)
    op.create_table(
        "users",
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("service_account", sa.Boolean(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_users_account_id_accounts")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_users")),
        sa.UniqueConstraint("account_id", "email", name=op.f("uq_users_account_id_email")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_users_account_id_id")),
    )
    op.create_table(
        "api_keys",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.String(length=63), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_uid"], ["users.uid"], name=op.f("fk_api_keys_user_uid_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
        sa.UniqueConstraint("key_id", name=op.f("uq_api_keys_key_id")),
    )
    op.create_index(op.f("ix_api_keys_account_id"), "api_keys", ["account_id"], unique=False)
    op.create_index(op.f("ix_api_keys_user_uid"), "api_keys", ["user_uid"], unique=False)
    op.create_table(
        "deployments",
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("annotations", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("base_model_uid", sa.Uuid(), nullable=False),
        sa.Column("min_replica_count", sa.Integer(), nullable=False),
        sa.Column("max_replica_count", sa.Integer(), nullable=False),
        sa.Column("desired_replica_count", sa.Integer(), nullable=False),
        sa.Column("enable_addons", sa.Boolean(), nullable=False),
        sa.Column("accelerator_type", sa.String(length=60), nullable=False),
        sa.Column("accelerator_count", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(length=40), nullable=False),
        sa.Column("max_context_length", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("delete_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("purge_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_reconcile_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deployments_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["base_model_uid"], ["models.uid"], name=op.f("fk_deployments_base_model_uid_models")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_deployments")),
    )
    op.create_index(op.f("ix_deployments_base_model_uid"), "deployments", ["base_model_uid"], unique=False)
    op.create_index(
        op.f("ix_deployments_next_reconcile_at"), "deployments", ["next_reconcile_at"], unique=False
    )
    op.create_index(
        "uq_deployments_account_id_id",
        "deployments",
        ["account_id", "id"],
        unique=True,
        postgresql_where=sa.text("state <> 'DELETED'"),
    )
    op.create_table(
        "fine_tuning_jobs",
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("model_id", sa.String(length=63), nullable=False),
        sa.Column("base_model_uid", sa.Uuid(), nullable=True),
        sa.Column("warm_start_uid", sa.Uuid(), nullable=True),
        sa.Column("dataset_uid", sa.Uuid(), nullable=True),
        sa.Column("evaluation_dataset_uid", sa.Uuid(), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("output_model_uid", sa.Uuid(), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_reconcile_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_fine_tuning_jobs_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["base_model_uid"],
            ["models.uid"],
            name=op.f("fk_fine_tuning_jobs_base_model_uid_models"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_uid"],
            ["datasets.uid"],
            name=op.f("fk_fine_tuning_jobs_dataset_uid_datasets"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["evaluation_dataset_uid"],
            ["datasets.uid"],
            name=op.f("fk_fine_tuning_jobs_evaluation_dataset_uid_datasets"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["warm_start_uid"],
            ["models.uid"],
            name=op.f("fk_fine_tuning_jobs_warm_start_uid_models"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_fine_tuning_jobs")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_fine_tuning_jobs_account_id_id")),
    )
    op.create_index(
        op.f("ix_fine_tuning_jobs_base_model_uid"), "fine_tuning_jobs", ["base_model_uid"], unique=False
    )
    op.create_index(
        op.f("ix_fine_tuning_jobs_dataset_uid"), "fine_tuning_jobs", ["dataset_uid"], unique=False
    )
    op.create_index(
        op.f("ix_fine_tuning_jobs_next_reconcile_at"), "fine_tuning_jobs", ["next_reconcile_at"], unique=False
    )
    op.create_index(
        "uq_fine_tuning_jobs_account_id_model_id",
        "fine_tuning_jobs",
        ["account_id", "model_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('CREATING', 'PENDING', 'RUNNING')"),
    )
    op.create_table(
        "deployed_models",
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("model_uid", sa.Uuid(), nullable=False),
        sa.Column("deployment_uid", sa.Uuid(), nullable=False),
        sa.Column("default", sa.Boolean(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deployed_models_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_uid"],
            ["deployments.uid"],
            name=op.f("fk_deployed_models_deployment_uid_deployments"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["model_uid"], ["models.uid"], name=op.f("fk_deployed_models_model_uid_models")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_deployed_models")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_deployed_models_account_id_id")),
        sa.UniqueConstraint(
            "deployment_uid", "model_uid", name=op.f("uq_deployed_models_deployment_uid_model_uid")
        ),
    )
    op.create_index(op.f("ix_deployed_models_model_uid"), "deployed_models", ["model_uid"], unique=False)
    op.create_index(
        "uq_deployed_models_default",
        "deployed_models",
        ["account_id", "model_uid"],
        unique=True,
        postgresql_where=sa.text('"default"'),
    )
    op.create_table(
        "replicas",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("deployment_uid", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("state_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("served_name", sa.Text(), nullable=False),
        sa.Column("health_misses", sa.Integer(), nullable=False),
        sa.Column("unhealthy_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment_uid"],
            ["deployments.uid"],
            name=op.f("fk_replicas_deployment_uid_deployments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_replicas")),
    )
    op.create_index(op.f("ix_replicas_deployment_uid"), "replicas", ["deployment_uid"], unique=False)
    op.create_table(
        "replica_adapters",
        sa.Column("replica_uid", sa.Uuid(), nullable=False),
        sa.Column("deployed_model_uid", sa.Uuid(), nullable=False),
        sa.Column("engine_name", sa.Text(), nullable=False),
        sa.Column("proven_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status_code", sa.String(length=40), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployed_model_uid"],
            ["deployed_models.uid"],
            name=op.f("fk_replica_adapters_deployed_model_uid_deployed_models"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["replica_uid"],
            ["replicas.uid"],
            name=op.f("fk_replica_adapters_replica_uid_replicas"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("replica_uid", "deployed_model_uid", name=op.f("pk_replica_adapters")),
    )


def downgrade() -> None:
    op.drop_table("replica_adapters")
    op.drop_index(op.f("ix_replicas_deployment_uid"), table_name="replicas")
    op.drop_table("replicas")
    op.drop_index(
        "uq_deployed_models_default", table_name="deployed_models", postgresql_where=sa.text('"default"')
    )
    op.drop_index(op.f("ix_deployed_models_model_uid"), table_name="deployed_models")
    op.drop_table("deployed_models")
    op.drop_index(
        "uq_fine_tuning_jobs_account_id_model_id",
        table_name="fine_tuning_jobs",
        postgresql_where=sa.text("state IN ('CREATING', 'PENDING', 'RUNNING')"),
    )
    op.drop_index(op.f("ix_fine_tuning_jobs_next_reconcile_at"), table_name="fine_tuning_jobs")
    op.drop_index(op.f("ix_fine_tuning_jobs_dataset_uid"), table_name="fine_tuning_jobs")
    op.drop_index(op.f("ix_fine_tuning_jobs_base_model_uid"), table_name="fine_tuning_jobs")
    op.drop_table("fine_tuning_jobs")
    op.drop_index(
        "uq_deployments_account_id_id",
        table_name="deployments",
        postgresql_where=sa.text("state <> 'DELETED'"),
    )
    op.drop_index(op.f("ix_deployments_next_reconcile_at"), table_name="deployments")
    op.drop_index(op.f("ix_deployments_base_model_uid"), table_name="deployments")
    op.drop_table("deployments")
    op.drop_index(op.f("ix_api_keys_user_uid"), table_name="api_keys")
    op.drop_index(op.f("ix_api_keys_account_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("users")
    op.drop_index(op.f("ix_models_next_reconcile_at"), table_name="models")
    op.drop_index(op.f("ix_models_base_model_uid"), table_name="models")
    op.drop_table("models")
    op.drop_index(op.f("ix_datasets_next_reconcile_at"), table_name="datasets")
    op.drop_table("datasets")
    op.drop_index("ix_usage_account_id_create_time", table_name="usage")
    op.drop_table("usage")
    op.drop_table("garbage")
    op.drop_table("accounts")
