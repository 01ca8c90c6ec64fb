"""Default hyper-parameters per base model, read from defaults.toml; whatever the user sets wins."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).with_suffix(".toml")

Method = Literal["LORA", "QLORA"]


class Defaults(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "LORA"
    batch_size: Annotated[int, Field(ge=1, lt=1024)]
    lora_rank: Annotated[int, Field(ge=1, le=64)]
    epochs: Annotated[float, Field(gt=0, le=100)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    cutoff_length: Annotated[int, Field(ge=2)]


class LargeModels(Defaults):
    from_parameters: int
    """The size from which a model counts as large."""


class DefaultsTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    other: Defaults
    large: LargeModels
    models: dict[str, Defaults]


@lru_cache(maxsize=1)
def defaults_table() -> DefaultsTable:
    return DefaultsTable.model_validate(tomllib.loads(FILE.read_text()))


def defaults_for(model_id: str, parameter_count: int, context_length: int) -> Defaults:
    """The model's own row, or one by its size; the cut-off is never more than the context length."""
    table = defaults_table()
    by_size = table.large if parameter_count >= table.large.from_parameters else table.other
    found = table.models.get(model_id, by_size)
    cutoff = min(found.cutoff_length, context_length) if context_length else found.cutoff_length
    return found.model_copy(update={"cutoff_length": cutoff})
