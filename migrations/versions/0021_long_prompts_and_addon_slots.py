"""deployments may spread long prompts, and say with their shapes how many addons stay on the device"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLES = ("deployments", "deployment_shapes")
SLOTS = "num_lora_device_cached"


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column(SLOTS, sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "deployments", sa.Column("long_prompt", sa.Boolean(), nullable=False, server_default="false")
    )


def downgrade() -> None:
    op.drop_column("deployments", "long_prompt")
    for table in TABLES:
        op.drop_column(table, SLOTS)
