"""Reads from the engine which architectures it serves, for checks that do not import it.

python -m workers.runtimes.architectures     # rewrites vllm_architectures.json from vLLM's registry
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
import types
from typing import Any
from unittest.mock import MagicMock

from controlplane.checks.architectures import FILE


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that models of pictures and sound import and that a machine without GPUs lacks.

    What is read here are facts of classes, for which the names are enough.
    """

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in ("torchvision", "torchaudio"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _AbsentModule(types.ModuleType):
    __version__ = "0"
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


def read_registry() -> dict[str, Any]:
    """The document of vllm_architectures.json, from the vLLM that is installed."""
    import vllm
    from vllm.model_executor.models import registry

    # The last to be asked: it stands in only for what is not installed.
    sys.meta_path.append(Absent())
    scoring = registry._SEQUENCE_CLASSIFICATION_MODELS.keys()
    return {
        "vllm": vllm.__version__,
        "architectures": _facts(registry._TEXT_GENERATION_MODELS.keys()),
        "multimodal": _facts(registry._MULTIMODAL_MODELS.keys()),
        "embedding": sorted(_facts(registry._EMBEDDING_MODELS.keys())),
        "scoring": sorted(_facts(scoring)),
    }


def _facts(names: Any) -> dict[str, dict[str, Any]]:
    from vllm.model_executor.models import registry
    from vllm.model_executor.models.interfaces import (
        has_inner_state,
        is_hybrid,
        supports_lora,
        supports_multimodal,
    )

    found = {}
    for name in sorted(names):
        model = registry.ModelRegistry._try_load_model_cls(name)
        if model is None:
            continue
        found[name] = {"supports_lora": bool(supports_lora(model))}
        if has_inner_state(model) or is_hybrid(model):
            found[name]["recurrent"] = True
        if supports_multimodal(model):
            found[name] |= {f"reads_{kind}": _reads(model, kind) for kind in ("image", "audio")}
    return found


def _reads(model: Any, kind: str) -> bool:
    """Whether a model has a place for such input in its prompt."""
    try:
        return model.get_placeholder_str(kind, 1) is not None
    except ValueError:
        return False


if __name__ == "__main__":
    FILE.write_text(json.dumps(read_registry(), indent=1) + "\n")
