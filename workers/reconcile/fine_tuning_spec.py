"""What the trainer is told: the job's settings and where its inputs lie, as one JSON document."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy.orm import Session

from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow

SEED = 42

PASSED_ON = (
    "epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "batch_size",
    "micro_batch_size",
    "lora_rank",
    "lora_alpha",
    "lora_target_modules",
    "cutoff_length",
    "evaluation",
    "evaluation_split",
    "early_stop",
)

PASSED_ON_IF_THERE = ("weight_decay", "batch_tokens")


def job_spec(session: Session, row: FineTuningJobRow) -> dict[str, Any]:
    """The specification of `python -m workers.training` for this job."""
    templates = row.settings.get("templates", {})
    return {
        "job_uid": str(row.uid),
        "job_name": row.name,
        "output_prefix": row.prefix,
        "base_model": source(session, ModelRow, row.base_model_uid),
        "warm_start": source(session, ModelRow, row.warm_start_uid),
        "datasets": [source(session, DatasetRow, row.dataset_uid)],
        "evaluation_dataset": source(session, DatasetRow, row.evaluation_dataset_uid),
        "kind": row.kind,
        "jinja_template": templates.get("jinja_template") or None,
        "input_template": templates.get("input_template"),
        "output_template": templates.get("output_template"),
        "seed": SEED,
        "wandb": None,
        **{name: row.settings[name] for name in PASSED_ON},
        # Jobs made by earlier versions do not say.
        **{name: row.settings[name] for name in PASSED_ON_IF_THERE if name in row.settings},
    }


def source(session: Session, table: Any, uid: uuid.UUID | None) -> dict[str, Any] | None:
    """Where an input's files lie, and what they must be to the byte."""
    if uid is None:
        return None
    row = session.get_one(table, uid)
    files = [
        {"name": name, "size": file["size"], "sha256": file["sha256"]}
        for name, file in sorted(row.files.items())
    ]
    return {"name": row.name, "uid": str(row.uid), "prefix": row.prefix, "files": files}
