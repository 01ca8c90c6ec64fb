"""autoscaling"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "deployments",
        sa.Column(
            "autoscaling_policy",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
        ),
    )
    op.alter_column("deployments", "autoscaling_policy", server_default=None)
    op.create_table(
        "deployment_scaling",
        sa.Column("deployment_uid", sa.Uuid(), nullable=False),
        sa.Column("trend", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("last_request_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scale_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment_uid"],
            ["deployments.uid"],
            name=op.f("fk_deployment_scaling_deployment_uid_deployments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("deployment_uid", name=op.f("pk_deployment_scaling")),
    )


def downgrade() -> None:
    op.drop_table("deployment_scaling")
    op.drop_column("deployments", "autoscaling_policy")
