"""fine-tuning jobs that queue by priority and by account, and that can be paused"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0011"
branch_labels = None
depends_on = None

JOBS = "fine_tuning_jobs"
MODEL_INDEX = "uq_fine_tuning_jobs_account_id_model_id"
ACTIVE = (
    "state IN ('CREATING', 'RESUMING', 'PENDING', 'RUNNING', 'RE_QUEUEING', 'PAUSING', 'PAUSED', "
    "'WRITING_RESULTS', 'CANCELLING')"
)
ACTIVE_BEFORE = "state IN ('CREATING', 'PENDING', 'RUNNING', 'RE_QUEUEING', 'WRITING_RESULTS', 'CANCELLING')"
PLACED = "state IN ('RUNNING', 'RE_QUEUEING', 'PAUSING', 'CANCELLING')"


def upgrade() -> None:
    op.add_column(JOBS, sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.alter_column(JOBS, "priority", server_default=None)
    op.add_column(JOBS, sa.Column("crash_step", sa.Integer(), server_default="0", nullable=False))
    op.alter_column(JOBS, "crash_step", server_default=None)
    op.add_column(JOBS, sa.Column("queue_time", sa.DateTime(timezone=True), nullable=True))
    op.add_column(JOBS, sa.Column("place_time", sa.DateTime(timezone=True), nullable=True))
    op.execute(f"UPDATE {JOBS} SET queue_time = create_time, place_time = start_time")
    op.alter_column(JOBS, "queue_time", nullable=False)
    # In the queue is now who may start at once; what an earlier trainer said of a resumed job goes first.
    op.execute(f"UPDATE {JOBS} SET state = 'RESUMING' WHERE state = 'PENDING' AND attempt > 0")
    create_model_index(ACTIVE)
    op.create_index(
        "ix_fine_tuning_jobs_queue",
        JOBS,
        ["account_id", "queue_time", "uid"],
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_index("ix_fine_tuning_jobs_placed", JOBS, ["account_id"], postgresql_where=sa.text(PLACED))
    op.create_index("ix_fine_tuning_jobs_account_id_place_time", JOBS, ["account_id", "place_time"])


def downgrade() -> None:
    # Paused before, cancelled now: both go on from their last checkpoint when they are resumed.
    op.execute(f"UPDATE {JOBS} SET state = 'CANCELLING' WHERE state = 'PAUSING'")
    op.execute(f"UPDATE {JOBS} SET state = 'CANCELLED', status_code = 'CANCELLED' WHERE state = 'PAUSED'")
    op.execute(f"UPDATE {JOBS} SET state = 'PENDING' WHERE state = 'RESUMING'")
    create_model_index(ACTIVE_BEFORE)
    for index in ("queue", "placed", "account_id_place_time"):
        op.drop_index(f"ix_fine_tuning_jobs_{index}", table_name=JOBS)
    for column in ("place_time", "queue_time", "crash_step", "priority"):
        op.drop_column(JOBS, column)


def create_model_index(condition: str) -> None:
    op.drop_index(MODEL_INDEX, table_name=JOBS)
    op.create_index(
        MODEL_INDEX, JOBS, ["account_id", "model_id"], unique=True, postgresql_where=sa.text(condition)
    )
