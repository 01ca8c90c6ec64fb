"""The architectures that the engine serves, without importing the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("vllm_architectures.json")
"""Written by `python -m workers.runtimes.architectures`, where the engine is installed."""

GENERATE, EMBED, SCORE = "generate", "embed", "score"
"""What a deployment's engines do: write text, embed it, or score pairs of a query and a document."""


@dataclass(frozen=True)
class Architecture:
    name: str
    supports_lora: bool
    task: str = GENERATE
    reads_images: bool = False
    reads_audio: bool = False
    recurrent: bool = False
    """Whether it reads a text into a state, which goes on and not back."""


@lru_cache(maxsize=1)
def architectures() -> dict[str, Architecture]:
    """Name in config.json's `architectures` → what the engine can do with it, where it writes text."""
    listed = _listed()
    # Addons are checked, and made, for models of text.
    seeing = {
        name: _architecture(name, {**facts, "supports_lora": False})
        for name, facts in listed["multimodal"].items()
        if facts.get("reads_image") or facts.get("reads_audio")
    }
    return seeing | {name: _architecture(name, facts) for name, facts in listed["architectures"].items()}


@lru_cache(maxsize=1)
def embedding_architectures() -> dict[str, Architecture]:
    """The same for models of kind EMBEDDING_MODEL. Whatever writes text can be made to embed it."""
    listed = _listed()
    embedding = {*listed["architectures"], *listed["embedding"]}
    found = {name: Architecture(name, False, EMBED) for name in embedding}
    return found | {name: Architecture(name, False, SCORE) for name in listed["scoring"]}


def _architecture(name: str, facts: dict[str, Any]) -> Architecture:
    return Architecture(
        name,
        bool(facts["supports_lora"]),
        reads_images=bool(facts.get("reads_image")),
        reads_audio=bool(facts.get("reads_audio")),
        recurrent=bool(facts.get("recurrent")),
    )


def _listed() -> dict[str, Any]:
    listed: dict[str, Any] = json.loads(FILE.read_text())
    return listed
