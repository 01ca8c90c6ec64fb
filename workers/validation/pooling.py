"""How an embedding model makes one vector of many: modules.json, as sentence-transformers writes it.

Without it the engine takes what is usual for the architecture. With it, all of it must be what the engine
does, or the vectors would silently be others than the model was trained to give.
"""

from __future__ import annotations

from typing import Any

import msgspec

from controlplane.checks.architectures import SCORE, Architecture
from controlplane.checks.model_config import CONFIG_FILE
from controlplane.checks.problems import FileSource, InvalidFile, ProblemList
from controlplane.checks.wording import shown
from workers.validation.json_files import read_small_file

MODULES_FILE = "modules.json"
MODULES_BYTES = 64 * 1024
SERVED = ("Transformer", "Pooling", "Normalize")


class _Module(msgspec.Struct):
    type: str
    path: str = ""


def check_pooling(
    source: FileSource,
    prefix: str,
    files: dict[str, int],
    config: dict[str, Any],
    architecture: Architecture,
    problems: ProblemList,
    warnings: list[str],
) -> None:
    if architecture.task == SCORE:
        labels = config.get("id2label")
        if not isinstance(labels, dict) or len(labels) != 1:
            problems.add(CONFIG_FILE, "id2label", "must have one label: what scores pairs gives one number")
        return
    if MODULES_FILE not in files:
        warnings.append("there is no modules.json: tokens are pooled as is usual for the architecture")
        return
    try:
        data = read_small_file(source, prefix + MODULES_FILE, MODULES_BYTES)
        modules = msgspec.json.decode(data, type=list[_Module])
    except InvalidFile as error:
        problems.add_invalid(MODULES_FILE, error)
        return
    except (msgspec.MsgspecError, RecursionError) as error:
        problems.add(MODULES_FILE, "", f"not a list of modules: {error}")
        return
    for index, module in enumerate(modules):
        _check_module(index, module, files, problems)


def _check_module(index: int, module: _Module, files: dict[str, int], problems: ProblemList) -> None:
    kind = module.type.rpartition(".")[2]
    if kind not in SERVED:
        problems.add(MODULES_FILE, f"[{index}].type", f"{shown(module.type)} is not served")
    if kind == "Pooling" and f"{module.path}/config.json" not in files:
        problems.add(f"{module.path}/config.json", "", "was not uploaded, and modules.json names it")
