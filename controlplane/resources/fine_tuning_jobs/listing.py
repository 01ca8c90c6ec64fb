from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Double, case, cast, func

from controlplane.resources.fine_tuning_jobs.effective import effective_fields
from controlplane.resources.fine_tuning_jobs.lineage import lineage_fields
from controlplane.resources.fine_tuning_jobs.outcome import REFUSED
from controlplane.resources.fine_tuning_jobs.schemas import TUNING_METHODS, FineTuningJob
from controlplane.resources.fine_tuning_jobs.states import SEED_NAMES, SEED_STATES
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.warnings import warning_fields
from controlplane.rest.filters.fields import (
    Field,
    boolean,
    enum,
    integer,
    json_boolean,
    json_integer,
    json_number,
    json_text,
    message,
    number,
    text,
    when,
)
from controlplane.rest.listing import Listing, resource_fields, state_fields

SETTINGS = FineTuningJobRow.settings
TEXTS = ("dataset", "base_model", "warm_start_from", "evaluation_dataset", "lr_scheduler_type")
INTEGERS = (
    "warmup_steps",
    "lora_alpha",
    "lora_rank",
    "micro_batch_size",
    "cutoff_length",
    "seed",
    "accelerator_count",
)
NUMBERS = ("epochs", "learning_rate", "evaluation_split", "weight_decay", "lora_dropout")
BOOLEANS = ("early_stop", "evaluation")


def _settings() -> dict[str, Field]:
    return {
        **{name: text(json_text(SETTINGS, name), nullable=False) for name in TEXTS},
        **{name: integer(json_integer(SETTINGS, name), nullable=False) for name in INTEGERS},
        **{name: number(json_number(SETTINGS, name), nullable=False) for name in NUMBERS},
        **{name: boolean(json_boolean(SETTINGS, name), nullable=False) for name in BOOLEANS},
        "tuning_method": enum(
            func.coalesce(SETTINGS["tuning_method"].astext, TUNING_METHODS[0]), TUNING_METHODS, nullable=False
        ),
        # Jobs made by earlier versions do not tell the batch from the step.
        "batch_size": integer(func.coalesce(_count("batch_rows"), _count("batch_size")), nullable=False),
        "gradient_accumulation_steps": integer(func.coalesce(_count("accumulation"), 1), nullable=False),
    }


def _count(name: str) -> Any:
    """A count among the settings; NULL where it is missing."""
    return cast(SETTINGS[name].astext, BigInteger)


def _templates(kind: str, *parts: str) -> dict[str, Field]:
    """The message of one kind of job, with the templates that it consists of."""
    is_set = FineTuningJobRow.kind == kind
    return {
        kind: message(is_set),
        **{f"{kind}.{part}": text(when(is_set, json_text(SETTINGS["templates"], part))) for part in parts},
    }


def _progress() -> dict[str, Field]:
    progress = FineTuningJobRow.progress
    is_set = progress != func.jsonb_build_object()
    fields = {
        "phase": text(when(is_set, json_text(progress, "phase"))),
        "epoch": number(when(is_set, json_number(progress, "epoch"))),
    }
    for name in ("step", "max_steps", "tokens_seen", "peak_memory_bytes", "gpu_memory_bytes"):
        fields[name] = integer(when(is_set, json_integer(progress, name)))
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "eta_seconds"):
        fields[name] = number(cast(progress[name].astext, Double))
    return {"progress": message(is_set), **{f"progress.{name}": field for name, field in fields.items()}}


STATE = case(SEED_NAMES, value=FineTuningJobRow.state, else_=FineTuningJobRow.state)

LISTING = Listing(
    key="fineTuningJobs",
    message=FineTuningJob,
    unique=FineTuningJobRow.uid,
    fields={
        **resource_fields(FineTuningJobRow, "fineTuningJobs"),
        **state_fields(FineTuningJobRow, ()),
        "state": enum(STATE, SEED_STATES, nullable=False),
        **_settings(),
        **_templates("text_completion", "input_template", "output_template"),
        **_templates("text_classification", "text", "label"),
        **_templates("conversation", "jinja_template"),
        "created_by": text(FineTuningJobRow.created_by),
        "model_id": text(FineTuningJobRow.model_id),
        "priority": integer(FineTuningJobRow.priority, nullable=False),
        "wandb_url": text(json_text(FineTuningJobRow.progress, "wandb_url"), nullable=False),
        "wandb_entity": text(json_text(SETTINGS["wandb"], "entity"), nullable=False),
        "wandb_project": text(json_text(SETTINGS["wandb"], "project"), nullable=False),
        **lineage_fields(SETTINGS["lineage"]),
        **effective_fields(),
        **warning_fields(),
        **_progress(),
    },
    refused=REFUSED,
)
