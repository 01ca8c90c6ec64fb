"""What the trainer is told: the job's settings and where its inputs lie, as one JSON document."""

from __future__ import annotations

import uuid
from datetime import UTC
from typing import Any

from sqlalchemy.orm import Session

from controlplane.config import Settings
from controlplane.encryption import Cipher
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from workers.training.examples.generic import GENERIC_TEMPLATE

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

PASSED_ON_IF_THERE = (
    "sampler_interval_steps",
    "weight_decay",
    "lora_dropout",
    "seed",
    "batch_tokens",
    "preference",
)


def job_spec(session: Session, row: FineTuningJobRow, settings: Settings) -> dict[str, Any]:
    """The specification of `python -m workers.training` for this job. It holds no secret."""
    templates = row.settings.get("templates", {})
    return {
        "job_uid": str(row.uid),
        "job_name": row.name,
        "day": row.create_time.astimezone(UTC).date().isoformat(),
        "output_prefix": row.prefix,
        "base_model": source(session, ModelRow, row.base_model_uid),
        "warm_start": source(session, ModelRow, row.warm_start_uid),
        "datasets": [source(session, DatasetRow, row.dataset_uid)],
        "evaluation_dataset": source(session, DatasetRow, row.evaluation_dataset_uid),
        "kind": row.kind,
        "jinja_template": chat_template(session, row, templates),
        "input_template": templates.get("input_template") or templates.get("text"),
        "output_template": templates.get("output_template") or templates.get("label"),
        "quantize_base": row.settings.get("tuning_method") == "QLORA",
        "processes": row.settings.get("accelerator_count", 1),
        "checkpoint_seconds": settings.checkpoint_seconds,
        "wandb": wandb(row, settings),
        **{name: row.settings[name] for name in PASSED_ON},
        # Jobs made by earlier versions do not say.
        **{name: row.settings[name] for name in PASSED_ON_IF_THERE if name in row.settings},
    }


def chat_template(session: Session, row: FineTuningJobRow, templates: dict[str, Any]) -> str | None:
    """The job's own; else that of the addon it goes on from; else the base model's, which is None here.

    A base model without one gets the generic one, which then goes with the adapter as a given one does.
    """
    if row.kind not in ("conversation", "preference"):
        return None
    if templates.get("jinja_template"):
        return str(templates["jinja_template"])
    base = session.get_one(ModelRow, row.base_model_uid)
    start = session.get_one(ModelRow, row.warm_start_uid) if row.warm_start_uid else base
    template, of_base = (
        str((model.conversation_config or {}).get("template") or "") for model in (start, base)
    )
    return None if template and template == of_base else template or GENERIC_TEMPLATE


def wandb(row: FineTuningJobRow, settings: Settings) -> dict[str, str] | None:
    """The run that the job logs to: the same in every attempt."""
    kept = row.settings.get("wandb")
    if not kept:
        return None
    run_id = kept["run_id"] or row.uid.hex
    return {**kept, "run_id": run_id, "base_url": settings.wandb_base_url, "mode": settings.wandb_mode}


def secrets_of(row: FineTuningJobRow, settings: Settings) -> dict[str, str]:
    """What goes to the trainer by its environment alone. Raises EncryptionError."""
    if not row.wandb_api_key:
        return {}
    return {"WANDB_API_KEY": Cipher.from_settings(settings).decrypt(row.wandb_api_key)}


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
