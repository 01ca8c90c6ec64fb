"""deployments and their shapes may keep the sessions of addons together"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLES = ("deployments", "deployment_shapes")
COLUMN = "enable_session_affinity"


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column(COLUMN, sa.Boolean(), nullable=False, server_default="false"))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, COLUMN)
