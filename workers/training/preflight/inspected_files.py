"""What an inspection reads. Light: the worker that fetches the files imports no training library."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SMALL_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""All that is read of a model before its weights are."""


@dataclass(frozen=True)
class StagedSource:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class InspectionFiles:
    base: str
    """A folder."""
    dataset: list[str]
    evaluation: list[str]
    work: str
    """A folder to write into."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
