"""Weights & Biases, for jobs that are to log there. The key is kept encrypted, until the job has ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from pydantic.alias_generators import to_camel

from controlplane.config import Settings
from controlplane.encryption import Cipher
from controlplane.errors import invalid

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
PROJECT = re.compile(r"(?! )[^/\\#?%:\x00-\x1f\x7f]{1,128}(?<! )")
"""What Weights & Biases takes, spaces included."""
LONGEST_KEY = 500


@dataclass(frozen=True)
class WandbWanted:
    """`words`: what the client calls `api_key`, `project`, `entity` and `run_id`."""

    api_key: SecretStr
    project: str
    entity: str
    run_id: str
    words: dict[str, str]

    def refuse_unfit(self, offline: bool) -> None:
        """Offline no key is needed: nothing is sent."""
        key = self.api_key.get_secret_value()
        if not key and not offline:
            word = self.words["api_key"]
            raise invalid(f"{word} is required to log to Weights & Biases", word)
        if len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise invalid(f"{self.words['api_key']} is not an API key", self.words["api_key"])
        if not self.project:
            word = self.words["project"]
            raise invalid(f"{word} is required to log to Weights & Biases", word)
        if not PROJECT.fullmatch(self.project):
            word = self.words["project"]
            raise invalid(f"{word} {self.project!r} must be at most 128 characters, none of /\\#?%:", word)
        for name in ("entity", "run_id"):
            value = getattr(self, name)
            if value and not NAME.fullmatch(value):
                word = self.words[name]
                raise invalid(f"{word} {value!r} must be at most 128 letters, digits and ._-", word)


def kept_wandb(wanted: WandbWanted | None, settings: Settings) -> tuple[dict[str, Any], str]:
    """What the job's settings keep, and the encrypted key; both empty for a job that logs nowhere."""
    if wanted is None:
        return {}, ""
    wanted.refuse_unfit(settings.wandb_mode == "offline")
    kept = {"project": wanted.project, "entity": wanted.entity, "run_id": wanted.run_id}
    key = wanted.api_key.get_secret_value()
    return {"wandb": kept}, Cipher.from_settings(settings).encrypt(key) if key else ""


def seed_wandb(given: dict[str, Any]) -> WandbWanted | None:
    """Of the older collection: any of its fields asks for it."""
    names = {"api_key": "wandb_api_key", "project": "wandb_project", "entity": "wandb_entity"}
    values = {name: given.get(field) for name, field in names.items()}
    key = values.pop("api_key") or SecretStr("")
    if not any(values.values()) and not key.get_secret_value():
        return None
    words = {"api_key": "wandbApiKey", "project": "wandbProject", "entity": "wandbEntity", "run_id": "runId"}
    return WandbWanted(key, values["project"] or "", values["entity"] or "", "", words)


def newer_wandb(given: dict[str, Any]) -> WandbWanted | None:
    """Of the newer collections: `wandbConfig`."""
    config = given.get("wandb_config")
    if config is None:
        return None
    fields = ("api_key", "project", "entity", "run_id")
    if not config.enabled:
        if any(getattr(config, name) != config.default_of(name) for name in fields):
            raise invalid(
                "wandbConfig has no effect unless wandbConfig.enabled is true", "wandbConfig.enabled"
            )
        return None
    words = {name: f"wandbConfig.{to_camel(name)}" for name in fields}
    return WandbWanted(**{name: getattr(config, name) for name in fields}, words=words)
