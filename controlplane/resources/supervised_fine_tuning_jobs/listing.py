from __future__ import annotations

from sqlalchemy import Numeric, and_, cast, false, func, literal

from controlplane.prices import NANOS
from controlplane.resources.fine_tuning_jobs.states import job_state
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS, FineTuningJobRow
from controlplane.resources.supervised_fine_tuning_jobs.schemas import JOB_STATES, SupervisedFineTuningJob
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
from controlplane.rest.listing import Listing, resource_fields, state_fields

SETTINGS, PROGRESS = FineTuningJobRow.settings, FineTuningJobRow.progress
TEXTS = ("dataset", "base_model", "warm_start_from", "evaluation_dataset")
INTEGERS = {
    "epochs": "epochs",
    "lora_rank": "lora_rank",
    "max_context_length": "cutoff_length",
    "batch_size": "batch_tokens",
    "batch_size_samples": "batch_rows",
    "gradient_accumulation_steps": "accumulation",
    "learning_rate_warmup_steps": "warmup_steps",
}
NUMBERS = {"learning_rate": "learning_rate", "optimizer_weight_decay": "weight_decay"}
NOT_HELD = "it is worked out when a job is read"


def _settings() -> dict[str, Field]:
    evaluation = json_boolean(SETTINGS, "evaluation")
    carved = and_(evaluation, json_text(SETTINGS, "evaluation_dataset") == "")
    return {
        **{name: text(json_text(SETTINGS, name), nullable=False) for name in TEXTS},
        **{name: integer(json_integer(SETTINGS, of), nullable=False) for name, of in INTEGERS.items()},
        **{name: number(json_number(SETTINGS, of), nullable=False) for name, of in NUMBERS.items()},
        "early_stop": boolean(json_boolean(SETTINGS, "early_stop"), nullable=False),
        "eval_auto_carveout": boolean(carved, nullable=False),
        "jinja_template": text(json_text(SETTINGS["templates"], "jinja_template"), nullable=False),
        "nodes": constant(1),
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


OUTPUT_MODEL = (
    literal("accounts/") + FineTuningJobRow.account_id + literal("/models/") + FineTuningJobRow.model_id
)

LISTING = Listing(
    key=SUPERVISED_FINE_TUNING_JOBS,
    message=SupervisedFineTuningJob,
    unique=FineTuningJobRow.uid,
    fields={
        **resource_fields(FineTuningJobRow, SUPERVISED_FINE_TUNING_JOBS),
        **state_fields(FineTuningJobRow, ()),
        "state": enum(
            job_state("") + FineTuningJobRow.state,
            JOB_STATES,
            nullable=False,
        ),
        "completed_time": time(FineTuningJobRow.end_time),
        "created_by": text(FineTuningJobRow.created_by),
        "output_model": text(OUTPUT_MODEL, nullable=False),
        **_settings(),
        **_progress(),
        **_cost(),
        "wandb_config": message(false()),
        "wandb_config.url": text(when(false(), "")),
        "trainer_logs_signed_url": constant(""),
    },
    refused={
        "metrics_file_signed_url": NOT_HELD,
        **{
            f"job_progress.{name}": NOT_HELD
            for name in (
                "percent",
                "total_input_requests",
                "total_processed_requests",
                "successfully_processed_requests",
            )
        },
    },
)
