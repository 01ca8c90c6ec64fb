"""deployments may be placed in a region, and say which one they are in"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    placement = postgresql.JSONB(astext_type=sa.Text())
    op.add_column("deployments", sa.Column("placement", placement, nullable=False, server_default="{}"))
    op.add_column("deployments", sa.Column("region", sa.String(60), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("deployments", "region")
    op.drop_column("deployments", "placement")
