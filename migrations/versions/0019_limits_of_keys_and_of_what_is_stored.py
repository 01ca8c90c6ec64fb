"""limits of API keys, and the size of what is stored"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
LISTED = "ix_responses_account_id_create_time"
PLACE = ["account_id", "create_time", "id"]


def upgrade() -> None:
    for name in LIMITS:
        op.add_column("api_keys", sa.Column(name, sa.Integer(), nullable=True))
    op.add_column("responses", sa.Column("size", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE responses SET size = octet_length(input::text) + octet_length(body::text)")
    op.drop_index(LISTED, table_name="responses")
    op.create_index(LISTED, "responses", PLACE, postgresql_include=["size"])


def downgrade() -> None:
    op.drop_index(LISTED, table_name="responses")
    op.create_index(LISTED, "responses", PLACE)
    op.drop_column("responses", "size")
    for name in LIMITS:
        op.drop_column("api_keys", name)
