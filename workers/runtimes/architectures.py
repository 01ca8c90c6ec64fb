"""The architectures that the engine serves, without importing the engine.

python -m workers.runtimes.architectures     # rewrites vllm_architectures.json from vLLM's registry
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("vllm_architectures.json")


@dataclass(frozen=True)
class Architecture:
    name: str
    supports_lora: bool


@lru_cache(maxsize=1)
def architectures() -> dict[str, Architecture]:
    """Name in config.json's `architectures` → what the engine can do with it. Text generation only."""
    listed = json.loads(FILE.read_text())["architectures"]
    return {name: Architecture(name, bool(facts["supports_lora"])) for name, facts in listed.items()}


def read_registry() -> dict[str, Any]:
    """The document of vllm_architectures.json, from the vLLM that is installed."""
    import vllm
    from vllm.model_executor.models import registry
    from vllm.model_executor.models.interfaces import supports_lora

    found = {}
    for name in sorted(registry._TEXT_GENERATION_MODELS):
        model = registry.ModelRegistry._try_load_model_cls(name)
        if model is not None:
            found[name] = {"supports_lora": bool(supports_lora(model))}
    return {"vllm": vllm.__version__, "architectures": found}


if __name__ == "__main__":
    FILE.write_text(json.dumps(read_registry(), indent=1) + "\n")
