"""What a job runs with in fact."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.filters.fields import Field as ListField
from controlplane.rest.filters.fields import (
    boolean,
    integer,
    json_boolean,
    json_integer,
    json_text,
    message,
    text,
    when,
)
from controlplane.rest.schema import ApiModel, Int64


class EffectiveSettings(ApiModel):
    """What the trainer runs with, as it said itself once it had made its plan."""

    tuning_method: str = ""
    precision: Annotated[str, Field(description="Of the base model's weights while they are trained on.")] = (
        ""
    )
    attention: Annotated[str, Field(description="The kernel that computes attention.")] = ""
    lora_target_modules: list[str] = Field(default_factory=list)
    micro_batch_size: Annotated[int, Field(description="Examples that one process takes at once.")] = 0
    gradient_accumulation_steps: Annotated[
        int, Field(description="Micro batches of each process in one step.")
    ] = 0
    gradient_checkpointing: bool = False
    processes: Annotated[
        int, Field(description="Each has an accelerator of its own, where there are any.")
    ] = 0
    shards: Annotated[
        int, Field(description="Parts that the base model is divided into. 1: each process has it whole.")
    ] = 0
    seed: int = 0
    memory_bytes: Annotated[Int64, Field(description="What each process was planned to need.")] = 0


def effective_settings(row: FineTuningJobRow) -> EffectiveSettings | None:
    said = row.progress.get("settings")
    return EffectiveSettings(**said) if said else None


TEXTS = ("tuning_method", "precision", "attention")
INTEGERS = ("micro_batch_size", "gradient_accumulation_steps", "processes", "shards", "seed", "memory_bytes")


def effective_fields() -> dict[str, ListField]:
    """What lists can be filtered by."""
    said = FineTuningJobRow.progress["settings"]
    is_set = said["tuning_method"].isnot(None)
    fields = {
        **{name: text(when(is_set, json_text(said, name))) for name in TEXTS},
        **{name: integer(when(is_set, json_integer(said, name))) for name in INTEGERS},
        "gradient_checkpointing": boolean(when(is_set, json_boolean(said, "gradient_checkpointing"))),
    }
    return {
        "effective_settings": message(is_set),
        **{f"effective_settings.{name}": field for name, field in fields.items()},
    }
