"""Which modules of an architecture an adapter may change: what jobs train, and the engine serves."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).with_suffix(".toml")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Targets(Strict):
    attention: tuple[str, ...]
    mlp: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.attention + self.mlp


class TargetTable(Strict):
    default: Targets
    architectures: dict[str, Targets]


@lru_cache(maxsize=1)
def target_table() -> TargetTable:
    return TargetTable.model_validate(tomllib.loads(FILE.read_text()))


def tunable_modules(architecture: str) -> tuple[str, ...]:
    """Names of linear layers, without their paths."""
    table = target_table()
    return table.architectures.get(architecture, table.default).names
