"""What a job is likely to cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controlplane.config import Settings
from controlplane.prices import NANOS, Prices
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.schema import ApiModel, Int64, OneOf


class Money(ApiModel):
    """`units` whole units of the currency and `nanos` billionths of one."""

    currency_code: str = "USD"
    units: Int64 = 0
    nanos: int = 0

    @classmethod
    def of(cls, cost_nanos: int) -> Money:
        return cls(units=cost_nanos // NANOS, nanos=cost_nanos % NANOS)


COUNTED, ESTIMATED = "COUNTED", "ESTIMATED"


class EstimateCostResponse(ApiModel):
    estimated_cost: Money
    tokens: Annotated[Int64, Field(description="Of all epochs.")] = 0
    tokens_basis: Annotated[
        str,
        OneOf("TOKENS_BASIS_UNSPECIFIED", COUNTED, ESTIMATED),
        Field(
            description="COUNTED: by an inspection of the dataset, as the trainer would. ESTIMATED: by the "
            "length of its text; an inspection was asked for, so ask again in a moment."
        ),
    ] = ESTIMATED


def estimated_tokens(job: FineTuningJobRow) -> int:
    """By the length of the dataset's text, in each epoch."""
    return int(job.settings["dataset_tokens"] * job.settings["epochs"])


def cost_of(settings: Settings, job: FineTuningJobRow, tokens: int) -> int:
    """In nano-dollars."""
    return (settings.prices or Prices()).of_training(job.settings["tuned_model"], tokens)
