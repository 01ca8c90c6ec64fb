"""Reads from the engine which architectures it serves, for checks that do not import it.

python -m workers.runtimes.architectures     # rewrites vllm_architectures.json from vLLM's registry
"""

from __future__ import annotations

import json
from typing import Any

from controlplane.checks.architectures import FILE


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
