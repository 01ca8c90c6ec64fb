"""The tensors of a LoRA adapter, compared with the base model that they are for."""

from __future__ import annotations

import re

from controlplane.checks.model_config import Sizes
from controlplane.checks.problems import FileSource, ProblemList
from workers.validation.adapter_config import MODULES, AdapterConfig
from workers.validation.expected_weights import FLOATS, linear_shapes
from workers.validation.safetensors_header import TensorInfo

_TENSOR = re.compile(
    r"^base_model\.model\.(?:model\.)?layers\.(?P<layer>\d{1,6})\."
    r"(?P<parent>self_attn|mlp)\.(?P<module>\w+)\.lora_(?P<side>[AB])\.weight$"
)
_ANY_TENSOR = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
CHUNK_BYTES = 4 * 1024 * 1024
_FULL_EXPONENT = {"F16": re.compile(rb"[\x7c-\x7f\xfc-\xff]"), "F32": re.compile(rb"[\x7f\xff]")}
_FULL_EXPONENT["BF16"] = _FULL_EXPONENT["F32"]


def check_adapter_tensors(
    file: str,
    tensors: dict[str, TensorInfo],
    config: AdapterConfig,
    sizes: Sizes | None,
    problems: ProblemList,
) -> dict[str, dict[str, str]]:
    """Names, shapes and dtypes; returns module → {"A": tensor, "B": tensor}.

    `sizes` None: the base's family is laid out in a way unknown here, and only ranks are compared.
    """
    modules: dict[str, dict[str, str]] = {}
    if not tensors:
        problems.add(file, "", "the file holds no tensors")
    for name, info in tensors.items():
        found = (_TENSOR if sizes else _ANY_TENSOR).match(name)
        if found is None or (sizes and _module_path(found) not in MODULES.values()):
            problems.add(file, name, "is no LoRA weight of a module that can be adapted")
            continue
        modules.setdefault(name.partition(".lora_")[0], {})[found["side"]] = name
        if info.dtype not in FLOATS:
            problems.add(file, name, f"dtype is {info.dtype}; expected F16, BF16 or F32")
        if sizes:
            _check_place(file, name, found, config, sizes, problems)
        _check_shape(file, name, info, found, config, sizes, problems)
    for module, sides in modules.items():
        if len(sides) < 2:
            missing = "B" if "A" in sides else "A"
            problems.add(file, f"{module}.lora_{missing}.weight", "is missing: each module needs A and B")
    return modules


def _module_path(found: re.Match[str]) -> str:
    return f"{found['parent']}.{found['module']}"


def _check_place(
    file: str, name: str, found: re.Match[str], config: AdapterConfig, sizes: Sizes, problems: ProblemList
) -> None:
    if int(found["layer"]) >= sizes.layers:
        problems.add(file, name, f"the base model has {sizes.layers} layers")
    if found["module"] not in config.target_modules:
        problems.add(file, name, f"{found['module']} is not in target_modules of adapter_config.json")


def _check_shape(
    file: str,
    name: str,
    info: TensorInfo,
    found: re.Match[str],
    config: AdapterConfig,
    sizes: Sizes | None,
    problems: ProblemList,
) -> None:
    """A is (r, in) and B is (out, r), with in and out of the base's weight."""
    is_a = found["side"] == "A"
    if sizes is None:
        if len(info.shape) != 2 or info.shape[0 if is_a else 1] != config.r:
            problems.add(file, name, f"shape is {list(info.shape)}; expected two sizes with r {config.r}")
        return
    rows, columns = linear_shapes(sizes)[_module_path(found)]
    expected = (config.r, columns) if is_a else (rows, config.r)
    if info.shape != expected:
        problems.add(
            file,
            name,
            f"shape is {list(info.shape)}; expected {list(expected)} "
            f"from r {config.r} and the base model's {found['module']}",
        )


def check_adapter_values(
    source: FileSource,
    key: str,
    file: str,
    tensors: dict[str, TensorInfo],
    modules: dict[str, dict[str, str]],
    problems: ProblemList,
) -> None:
    """Read every value: none may be infinite or no number, and some module must change the base.

    An adapter that changes nothing cannot be told from one that was not loaded, so it is refused.
    """
    zero: dict[str, bool] = {}
    for name, info in tensors.items():
        zero[name], finite = _look_at_values(source, key, info)
        if not finite:
            problems.add(file, name, "holds a value that is infinite or not a number")
    if modules and all(any(zero[name] for name in sides.values()) for sides in modules.values()):
        problems.add(file, "", "the adapter changes nothing: of every module, lora_A or lora_B is all zero")


def _look_at_values(source: FileSource, key: str, info: TensorInfo) -> tuple[bool, bool]:
    """(all zero, all finite) of a float tensor, by its bytes."""
    zero = finite = True
    position = info.begin
    while position < info.end:
        chunk = source.read_range(key, position, min(CHUNK_BYTES, info.end - position))
        if not chunk:
            break
        zero = zero and chunk.count(0) == len(chunk)
        finite = finite and not _holds_infinite(chunk, info.dtype)
        position += len(chunk)
    return zero, finite


def _holds_infinite(chunk: bytes, dtype: str) -> bool:
    """Whether an exponent is all ones. Looks at the top bytes of all values at once."""
    width = 4 if dtype == "F32" else 2
    top, next_to_top = chunk[width - 1 :: width], chunk[width - 2 :: width]
    candidates = _FULL_EXPONENT[dtype].finditer(top)
    if dtype == "F16":
        return next(candidates, None) is not None
    return any(next_to_top[found.start()] >= 0x80 for found in candidates)
