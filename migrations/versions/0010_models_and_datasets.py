"""datasets that are made from others"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("source_uid", sa.Uuid(), nullable=True))
    op.add_column(
        "datasets",
        sa.Column(
            "source",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
        ),
    )
    op.alter_column("datasets", "source", server_default=None)
    op.create_foreign_key(
        op.f("fk_datasets_source_uid_datasets"),
        "datasets",
        "datasets",
        ["source_uid"],
        ["uid"],
        ondelete="SET NULL",
    )
    op.create_index(op.f("ix_datasets_source_uid"), "datasets", ["source_uid"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_datasets_source_uid"), table_name="datasets")
    op.drop_constraint(op.f("fk_datasets_source_uid_datasets"), "datasets", type_="foreignkey")
    op.drop_column("datasets", "source")
    op.drop_column("datasets", "source_uid")
