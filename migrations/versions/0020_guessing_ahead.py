"""deployments and their shapes may have tokens guessed ahead"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLES = ("deployments", "deployment_shapes")
SETTINGS = ("ngram_speculation_length", "draft_token_count")


def upgrade() -> None:
    for table in TABLES:
        for name in SETTINGS:
            op.add_column(table, sa.Column(name, sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table in TABLES:
        for name in reversed(SETTINGS):
            op.drop_column(table, name)
