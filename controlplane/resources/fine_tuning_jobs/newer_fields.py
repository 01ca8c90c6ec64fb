"""What lists of the newer job collections can be filtered and ordered by, where they have it in common."""

from __future__ import annotations

from sqlalchemy import Double, Numeric, and_, case, cast, func, literal, true

from controlplane.prices import NANOS
from controlplane.resources.fine_tuning_jobs import outcome
from controlplane.resources.fine_tuning_jobs.effective import effective_fields
from controlplane.resources.fine_tuning_jobs.lineage import lineage_fields
from controlplane.resources.fine_tuning_jobs.newer import JOB_STATES, PRECISION_OF_METHOD, PRECISIONS, STATE
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.fine_tuning_jobs.warnings import warning_fields
from controlplane.rest.filters.fields import (
    Field,
    boolean,
    constant,
    enum,
    integer,
    json_boolean,
    json_integer,
    json_number,
    json_text,
    message,
    number,
    text,
    time,
    when,
)
from controlplane.rest.listing import resource_fields, state_fields

SETTINGS, PROGRESS = FineTuningJobRow.settings, FineTuningJobRow.progress
TEXTS = ("base_model", "warm_start_from")
INTEGERS = {
    "epochs": "epochs",
    "lora_rank": "lora_rank",
    "max_context_length": "cutoff_length",
    "batch_size": "batch_tokens",
    "batch_size_samples": "batch_rows",
    "gradient_accumulation_steps": "accumulation",
    "learning_rate_warmup_steps": "warmup_steps",
}
SAMPLERS = "sampler_checkpoint_save_interval_steps"
NUMBERS = {"learning_rate": "learning_rate", "optimizer_weight_decay": "weight_decay"}
WHOLE = ("step", "max_steps", "peak_memory_bytes", "gpu_memory_bytes")
FRACTIONS = (
    *("loss", "learning_rate", "grad_norm", "tokens_per_second", "eta_seconds"),
    *("reward_accuracy", "reward_margin"),
)
NOT_HELD = "it is worked out when a job is read"
REFUSED = outcome.REFUSED | {
    f"job_progress.{name}": NOT_HELD
    for name in (
        "percent",
        "total_input_requests",
        "total_processed_requests",
        "successfully_processed_requests",
    )
}
OUTPUT_MODEL = (
    literal("accounts/") + FineTuningJobRow.account_id + literal("/models/") + FineTuningJobRow.model_id
)
PRECISION = case(PRECISION_OF_METHOD, value=SETTINGS["tuning_method"].astext, else_=PRECISIONS[0])


def job_fields(collection: str) -> dict[str, Field]:
    """What is neither a setting of the training nor the collection's own."""
    return {
        **resource_fields(FineTuningJobRow, collection),
        **state_fields(FineTuningJobRow, ()),
        "state": enum(STATE, JOB_STATES, nullable=False),
        "completed_time": time(FineTuningJobRow.end_time),
        "created_by": text(FineTuningJobRow.created_by),
        "dataset": text(json_text(SETTINGS, "dataset"), nullable=False),
        **_evaluation(),
        **_progress(),
        **_cost(),
        **_wandb(),
        **lineage_fields(SETTINGS["lineage"]),
        **effective_fields(),
        **warning_fields(),
        "trainer_logs_signed_url": constant(""),
    }


def training_fields() -> dict[str, Field]:
    """The settings of the training itself."""
    return {
        "output_model": text(OUTPUT_MODEL, nullable=False),
        **{name: text(json_text(SETTINGS, name), nullable=False) for name in TEXTS},
        **{name: integer(json_integer(SETTINGS, of), nullable=False) for name, of in INTEGERS.items()},
        **{name: number(json_number(SETTINGS, of), nullable=False) for name, of in NUMBERS.items()},
        "jinja_template": text(json_text(SETTINGS["templates"], "jinja_template"), nullable=False),
        SAMPLERS: integer(json_integer(SETTINGS, "sampler_interval_steps"), nullable=False),
        "accelerator_count": integer(json_integer(SETTINGS, "accelerator_count"), nullable=False),
        "base_model_weight_precision": enum(PRECISION, PRECISIONS, nullable=False),
    }


def _evaluation() -> dict[str, Field]:
    evaluation = json_boolean(SETTINGS, "evaluation")
    carved = and_(evaluation, json_text(SETTINGS, "evaluation_dataset") == "")
    return {
        "evaluation_dataset": text(json_text(SETTINGS, "evaluation_dataset"), nullable=False),
        "early_stop": boolean(json_boolean(SETTINGS, "early_stop"), nullable=False),
        "eval_auto_carveout": boolean(carved, nullable=False),
    }


def _progress() -> dict[str, Field]:
    is_set = func.jsonb_build_object() != PROGRESS
    epoch = func.floor(json_number(PROGRESS, "epoch"))
    return {
        "job_progress": message(is_set),
        "job_progress.epoch": integer(when(is_set, epoch)),
        "job_progress.input_tokens": integer(when(is_set, json_integer(PROGRESS, "tokens_seen"))),
        **{
            f"job_progress.{name}": integer(when(is_set, 0))
            for name in ("failed_requests", "output_rows", "output_tokens", "cached_input_token_count")
        },
        "job_progress.phase": text(when(is_set, json_text(PROGRESS, "phase"))),
        **{f"job_progress.{name}": integer(when(is_set, json_integer(PROGRESS, name))) for name in WHOLE},
        **{f"job_progress.{name}": number(cast(PROGRESS[name].astext, Double)) for name in FRACTIONS},
    }


def _wandb() -> dict[str, Field]:
    kept = SETTINGS["wandb"]
    is_set = kept.isnot(None)
    return {
        "wandb_config": message(is_set),
        "wandb_config.enabled": boolean(when(is_set, true())),
        "wandb_config.url": text(when(is_set, json_text(PROGRESS, "wandb_url"))),
        **{
            f"wandb_config.{name}": text(when(is_set, json_text(kept, name)))
            for name in ("project", "entity", "run_id")
        },
    }


def _cost() -> dict[str, Field]:
    cost = SETTINGS["estimated_cost"]
    is_set = cost.isnot(None)
    return {
        "estimated_cost": message(is_set),
        "estimated_cost.currency_code": text(when(is_set, "USD")),
        "estimated_cost.units": integer(func.div(cast(cost.astext, Numeric), NANOS)),
        "estimated_cost.nanos": integer(func.mod(cast(cost.astext, Numeric), NANOS)),
    }
