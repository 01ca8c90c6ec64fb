"""The architectures that the engine serves, without importing the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("vllm_architectures.json")
"""Written by `python -m workers.runtimes.architectures`, where the engine is installed."""


@dataclass(frozen=True)
class Architecture:
    name: str
    supports_lora: bool


@lru_cache(maxsize=1)
def architectures() -> dict[str, Architecture]:
    """Name in config.json's `architectures` → what the engine can do with it. Text generation only."""
    listed = json.loads(FILE.read_text())["architectures"]
    return {name: Architecture(name, bool(facts["supports_lora"])) for name, facts in listed.items()}
