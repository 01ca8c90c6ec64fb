from __future__ import annotations

from sqlalchemy import String, case, cast, func, true

from controlplane.resources.dpo_jobs.schemas import METHODS, DpoJob
from controlplane.resources.fine_tuning_jobs.newer_fields import (
    REFUSED,
    SETTINGS,
    job_fields,
    training_fields,
)
from controlplane.resources.fine_tuning_jobs.tables import DPO_JOBS, FineTuningJobRow
from controlplane.rest.filters.fields import (
    Field,
    enum,
    integer,
    json_integer,
    json_number,
    json_text,
    message,
    number,
    when,
)
from controlplane.rest.listing import Listing

PREFERENCE = SETTINGS["preference"]


def _training() -> dict[str, Field]:
    own_alpha = json_text(SETTINGS, "warm_start_from") != ""
    alpha = case((own_alpha, 0), else_=json_integer(SETTINGS, "lora_alpha"))
    fields = {
        **training_fields(),
        "lora_alpha": integer(alpha, nullable=False),
        "lora_dropout": number(json_number(SETTINGS, "lora_dropout"), nullable=False),
    }
    return {
        "training_config": message(true()),
        **{f"training_config.{name}": field for name, field in fields.items()},
    }


def _loss() -> dict[str, Field]:
    method = func.upper(cast(PREFERENCE["method"].astext, String))
    found: dict[str, Field] = {
        "loss_config": message(true()),
        "loss_config.method": enum(method, METHODS, nullable=False),
    }
    for part, setting, kind in (("dpo.beta", "beta", "DPO"), ("orpo.lambda", "odds_weight", "ORPO")):
        is_set = method == kind
        found[f"loss_config.{part.partition('.')[0]}"] = message(is_set)
        found[f"loss_config.{part}"] = number(when(is_set, json_number(PREFERENCE, setting)))
    return found


LISTING = Listing(
    key=DPO_JOBS,
    message=DpoJob,
    unique=FineTuningJobRow.uid,
    fields={
        **job_fields(DPO_JOBS),
        **_training(),
        **_loss(),
        "priority": integer(FineTuningJobRow.priority, nullable=False),
    },
    refused=REFUSED,
)
