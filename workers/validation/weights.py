"""The weights of a base model: gathered over its files, and compared with its index and its configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlplane.checks.model_config import ConfigFacts
from controlplane.checks.problems import FileSource, InvalidFile, ProblemList
from controlplane.checks.wording import shown
from workers.validation.expected_weights import FLOATS, expected_weights
from workers.validation.json_files import VOCABULARY_BYTES, read_json_object
from workers.validation.safetensors_header import TensorInfo, read_safetensors_header
from workers.validation.torch_archive import read_torch_archive

INDEX_SUFFIX = ".index.json"
_LAYER = re.compile(r"^model\.layers\.(\d{1,6})\.")
_UNUSED = re.compile(r"(rotary_emb\.(inv_freq|cos_cached|sin_cached)|embeddings\.position_ids)$")


@dataclass(frozen=True)
class Weight:
    file: str
    info: TensorInfo


def read_weight_file(source: FileSource, key: str, size: int) -> dict[str, TensorInfo]:
    """The tensors of one weight file, by the layout that its name tells; raises `InvalidFile`."""
    reader = read_safetensors_header if key.endswith(".safetensors") else read_torch_archive
    return reader(source, key, size)


def read_weights(
    source: FileSource, prefix: str, files: dict[str, int], problems: ProblemList, warnings: list[str]
) -> dict[str, Weight]:
    """Every weight that the engine will load, by name; what is wrong with a file goes to `problems`."""
    suffix = ".safetensors" if any(name.endswith(".safetensors") for name in files) else ".bin"
    names = sorted(name for name in files if name.endswith((".safetensors", ".bin")))
    if not names:
        problems.add("", "", "there are no weights: expected *.safetensors or *.bin files")
    indexes = [name for name in files if name.endswith(suffix + INDEX_SUFFIX)]
    promised = _read_indexes(source, prefix, sorted(indexes), files, problems)
    weights: dict[str, Weight] = {}
    for name in names:
        tensors = _read_file(source, prefix, name, files[name], problems)
        if not name.endswith(suffix) or (indexes and name not in promised.values()):
            warnings.append(f"{name} is not used: other files hold the weights")
            continue
        for tensor, info in tensors.items():
            if tensor in weights:
                problems.add(name, tensor, f"is in {weights[tensor].file} as well")
            weights[tensor] = Weight(name, info)
    _check_promises(promised, files, weights, problems)
    return weights


def check_weights(
    weights: dict[str, Weight],
    facts: ConfigFacts,
    complete: bool,
    problems: ProblemList,
    warnings: list[str],
    *,
    embedding: bool = False,
) -> None:
    """Compare names, shapes and dtypes with what the configuration promises.

    `complete` False: some file could not be read, and its weights are not called missing as well.
    `embedding`: models that embed are written with and without the parts that only writing text takes.
    """
    for name, weight in weights.items():
        if weight.info.dtype not in FLOATS and not _UNUSED.search(name):
            problems.add(weight.file, name, f"dtype is {weight.info.dtype}; expected F16, BF16 or F32")
    expected = None if embedding else expected_weights(facts)
    if expected is None:
        warnings.append(f"the shapes of {facts.architecture} weights are checked when the model is loaded")
        return
    for name, shape in expected.items():
        if name not in weights:
            if complete:
                problems.add("", name, "this weight is in none of the files")
        elif weights[name].info.shape != shape:
            found = list(weights[name].info.shape)
            problems.add(
                weights[name].file, name, f"shape is {found}; expected {list(shape)} from config.json"
            )
    for name in sorted(weights.keys() - expected.keys()):
        _judge_unexpected(name, weights[name], facts, problems)


def count_parameters(weights: dict[str, Weight]) -> int:
    return sum(weight.info.elements for name, weight in weights.items() if not _UNUSED.search(name))


def _read_file(
    source: FileSource, prefix: str, name: str, size: int, problems: ProblemList
) -> dict[str, TensorInfo]:
    try:
        tensors = read_weight_file(source, prefix + name, size)
    except InvalidFile as error:
        problems.add_invalid(name, error)
        return {}
    if not tensors:
        problems.add(name, "", "the file holds no tensors")
    return tensors


def _read_indexes(
    source: FileSource, prefix: str, indexes: list[str], files: dict[str, int], problems: ProblemList
) -> dict[str, str]:
    """Tensor name → file name, as the index files say."""
    promised: dict[str, str] = {}
    for index in indexes:
        try:
            weight_map = read_json_object(source, prefix + index, VOCABULARY_BYTES).get("weight_map")
        except InvalidFile as error:
            problems.add_invalid(index, error)
            continue
        if not isinstance(weight_map, dict) or any(not isinstance(file, str) for file in weight_map.values()):
            problems.add(index, "weight_map", "must be an object of tensor name → file name")
            continue
        promised.update(weight_map)
        for file in sorted(set(weight_map.values()) - files.keys()):
            problems.add(index, "weight_map", f"names {shown(file)}, which was not uploaded")
    return promised


def _check_promises(
    promised: dict[str, str], files: dict[str, int], weights: dict[str, Weight], problems: ProblemList
) -> None:
    for tensor, file in promised.items():
        held = weights.get(tensor)
        if file in files and (held is None or held.file != file):
            where = f"it is in {held.file}" if held else "it is in no file"
            problems.add(file, tensor, f"the index promises this tensor here; {where}")


def _judge_unexpected(name: str, weight: Weight, facts: ConfigFacts, problems: ProblemList) -> None:
    """A weight that the configuration does not promise: harmless, or the engine would stumble over it."""
    layer = _LAYER.match(name)
    if layer and int(layer.group(1)) >= facts.sizes.layers:
        problems.add(weight.file, name, f"config.json has num_hidden_layers {facts.sizes.layers}")
    elif not (_UNUSED.search(name) or name == "lm_head.weight" or name.endswith(".bias")):
        problems.add(weight.file, name, f"{facts.architecture} has no such weight")
