"""the key that a job logs to Weights & Biases with, and what models were made of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "fine_tuning_jobs", sa.Column("wandb_api_key", sa.Text(), server_default="", nullable=False)
    )
    op.alter_column("fine_tuning_jobs", "wandb_api_key", server_default=None)
    op.add_column("models", sa.Column("lineage", JSONB(), server_default="{}", nullable=False))
    op.alter_column("models", "lineage", server_default=None)


def downgrade() -> None:
    op.drop_column("models", "lineage")
    op.drop_column("fine_tuning_jobs", "wandb_api_key")
