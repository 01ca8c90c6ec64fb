"""deployment shapes"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment_shapes",
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("base_model_uid", sa.Uuid(), nullable=True),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("model_type", sa.Text(), nullable=False),
        sa.Column("parameter_count", sa.BigInteger(), nullable=False),
        sa.Column("accelerator_type", sa.String(length=60), nullable=False),
        sa.Column("accelerator_count", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(length=40), nullable=False),
        sa.Column("max_context_length", sa.Integer(), nullable=False),
        sa.Column("enable_addons", sa.Boolean(), nullable=False),
        sa.Column("disable_speculative_decoding", sa.Boolean(), nullable=False),
        sa.Column("disable_deployment_size_validation", sa.Boolean(), nullable=False),
        sa.Column("preset_type", sa.String(length=40), nullable=False),
        sa.Column("newest_version", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deployment_shapes_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["base_model_uid"],
            ["models.uid"],
            name=op.f("fk_deployment_shapes_base_model_uid_models"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_deployment_shapes")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_deployment_shapes_account_id_id")),
    )
    op.create_index(
        op.f("ix_deployment_shapes_base_model_uid"), "deployment_shapes", ["base_model_uid"], unique=False
    )
    op.create_table(
        "deployment_shape_versions",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("shape_uid", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=63), nullable=False),
        sa.Column("shape_id", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("base_model_uid", sa.Uuid(), nullable=True),
        sa.Column("snapshot", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("validated", sa.Boolean(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("latest_validated", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["shape_uid"],
            ["deployment_shapes.uid"],
            name=op.f("fk_deployment_shape_versions_shape_uid_deployment_shapes"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["base_model_uid"],
            ["models.uid"],
            name=op.f("fk_deployment_shape_versions_base_model_uid_models"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_deployment_shape_versions")),
        sa.UniqueConstraint("shape_uid", "id", name=op.f("uq_deployment_shape_versions_shape_uid_id")),
        sa.UniqueConstraint(
            "shape_uid", "number", name=op.f("uq_deployment_shape_versions_shape_uid_number")
        ),
    )
    op.create_index(
        op.f("ix_deployment_shape_versions_base_model_uid"),
        "deployment_shape_versions",
        ["base_model_uid"],
        unique=False,
    )
    op.create_index(
        "ix_deployment_shape_versions_account_id_shape_id",
        "deployment_shape_versions",
        ["account_id", "shape_id"],
        unique=False,
    )
    op.create_index(
        "uq_deployment_shape_versions_latest_validated",
        "deployment_shape_versions",
        ["shape_uid"],
        unique=True,
        postgresql_where=sa.text("latest_validated"),
    )
    op.add_column("deployments", sa.Column("deployment_shape", sa.Text(), server_default="", nullable=False))
    op.add_column(
        "deployments",
        sa.Column("disable_deployment_size_validation", sa.Boolean(), server_default="false", nullable=False),
    )
    # Deleted deployments did not keep how many replicas they wanted, and could not be undeleted.
    op.execute(
        "UPDATE deployments SET desired_replica_count = "
        "CASE WHEN max_replica_count = 0 THEN 0 ELSE greatest(min_replica_count, 1) END "
        "WHERE state = 'DELETED' AND desired_replica_count = 0"
    )


def downgrade() -> None:
    op.drop_column("deployments", "disable_deployment_size_validation")
    op.drop_column("deployments", "deployment_shape")
    op.drop_index(
        "uq_deployment_shape_versions_latest_validated",
        table_name="deployment_shape_versions",
        postgresql_where=sa.text("latest_validated"),
    )
    op.drop_index("ix_deployment_shape_versions_account_id_shape_id", table_name="deployment_shape_versions")
    op.drop_index(op.f("ix_deployment_shape_versions_base_model_uid"), table_name="deployment_shape_versions")
    op.drop_table("deployment_shape_versions")
    op.drop_index(op.f("ix_deployment_shapes_base_model_uid"), table_name="deployment_shapes")
    op.drop_table("deployment_shapes")
