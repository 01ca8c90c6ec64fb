"""What a new job is to do, in the trainer's words, whichever collection it is asked for through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic.alias_generators import to_camel

from controlplane.resources.fine_tuning_jobs.defaults import Defaults
from controlplane.resources.fine_tuning_jobs.wandb import WandbWanted


@dataclass(frozen=True)
class Wanted:
    collection: str
    job_id: str
    """Empty: one is made up."""
    given: dict[str, Any]
    """What the client set, under the names that `resolve_settings` knows. 0, "" and False are unset."""
    templates: dict[str, dict[str, str]]
    """By the kind of job; the dataset's format says which of these kinds it is."""
    defaults: Callable[[str, int, int], Defaults]
    """Of a base model, by its id, its parameters and its context length."""
    words: Mapping[str, str] = field(default_factory=dict)
    """The collection's own names of what is called otherwise here."""
    wandb: WandbWanted | None = None

    def word(self, name: str) -> str:
        """The field that the client knows as the setting `name`."""
        return self.words.get(name) or to_camel(name)
