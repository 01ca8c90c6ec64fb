"""supervised fine-tuning jobs: two collections over one table, and jobs that can be cancelled"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MODEL_INDEX = "uq_fine_tuning_jobs_account_id_model_id"
ACTIVE = "state IN ('CREATING', 'PENDING', 'RUNNING', 'RE_QUEUEING', 'WRITING_RESULTS', 'CANCELLING')"
ACTIVE_BEFORE = "state IN ('CREATING', 'PENDING', 'RUNNING')"


def upgrade() -> None:
    op.add_column(
        "fine_tuning_jobs",
        sa.Column("collection", sa.String(length=40), server_default="fineTuningJobs", nullable=False),
    )
    op.alter_column("fine_tuning_jobs", "collection", server_default=None)
    op.drop_constraint(op.f("uq_fine_tuning_jobs_account_id_id"), "fine_tuning_jobs", type_="unique")
    op.create_unique_constraint(
        op.f("uq_fine_tuning_jobs_account_id_collection_id"),
        "fine_tuning_jobs",
        ["account_id", "collection", "id"],
    )
    # Jobs whose model is being checked had no state of their own.
    op.execute(
        "UPDATE fine_tuning_jobs SET state = 'WRITING_RESULTS' "
        "WHERE state = 'RUNNING' AND reason = 'REGISTERED'"
    )
    create_model_index(ACTIVE)


def downgrade() -> None:
    op.execute(
        "INSERT INTO garbage (uid, prefix, create_time) "
        "SELECT gen_random_uuid(), 'accounts/' || account_id || '/fine-tuning-jobs/' || uid || '/', now() "
        "FROM fine_tuning_jobs WHERE collection <> 'fineTuningJobs'"
    )
    op.execute("DELETE FROM fine_tuning_jobs WHERE collection <> 'fineTuningJobs'")
    op.execute(
        "UPDATE fine_tuning_jobs SET state = 'RUNNING' WHERE state IN ('WRITING_RESULTS', 'RE_QUEUEING')"
    )
    op.execute("UPDATE fine_tuning_jobs SET state = 'COMPLETED' WHERE state = 'EARLY_STOPPED'")
    create_model_index(ACTIVE_BEFORE)
    op.drop_constraint(
        op.f("uq_fine_tuning_jobs_account_id_collection_id"), "fine_tuning_jobs", type_="unique"
    )
    op.create_unique_constraint(
        op.f("uq_fine_tuning_jobs_account_id_id"), "fine_tuning_jobs", ["account_id", "id"]
    )
    op.drop_column("fine_tuning_jobs", "collection")


def create_model_index(condition: str) -> None:
    op.drop_index(MODEL_INDEX, table_name="fine_tuning_jobs", postgresql_where=sa.text(condition))
    op.create_index(
        MODEL_INDEX,
        "fine_tuning_jobs",
        ["account_id", "model_id"],
        unique=True,
        postgresql_where=sa.text(condition),
    )
