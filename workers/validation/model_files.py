"""Checks the files of an uploaded base model before anything tries to load them.

Cheap checks come first and their problems are told together; only files that passed them are read to the end
for their checksums.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from controlplane.checks.architectures import GENERATE, Architecture, architectures, embedding_architectures
from controlplane.checks.model_config import CONFIG_FILE, ConfigFacts, read_config
from controlplane.checks.problems import FileSource, InvalidFile, InvalidModel, Problem, ProblemList
from controlplane.storage import ObjectNotFound
from workers.validation.generation_config import read_generation_config
from workers.validation.json_files import read_json_object
from workers.validation.pooling import check_pooling
from workers.validation.tokenizer import TokenizerFacts, read_tokenizer
from workers.validation.weights import Weight, check_weights, count_parameters, read_weights

__all__ = [
    "BaseModelReport",
    "InvalidModel",
    "ModelStore",
    "check_file_name",
    "check_files",
    "checksum_files",
    "validate_base_model",
]

MAX_NAME_BYTES = 200
POOLING_CONFIG = re.compile(r"[0-9]_Pooling/config\.json")
"""The one file that has a folder, where sentence-transformers puts it and the engine looks for it."""
REFUSED_SUFFIXES = {
    ".py": "code is never run; remove it",
    ".pyc": "code is never run; remove it",
    ".so": "code is never run; remove it",
    ".pt": "pickles can run code; save the weights as safetensors",
    ".pth": "pickles can run code; save the weights as safetensors",
    ".pkl": "pickles can run code; save the weights as safetensors",
    ".pickle": "pickles can run code; save the weights as safetensors",
    ".ckpt": "pickles can run code; save the weights as safetensors",
    ".joblib": "pickles can run code; remove it",
    ".npy": "arrays of numpy may hold pickles; remove it",
    ".npz": "arrays of numpy may hold pickles; remove it",
}


class ModelStore(FileSource, Protocol):
    def open_stream(self, key: str) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class BaseModelReport:
    """What is known of a good base model. `to_dict` is what the database keeps as its facts."""

    architecture: str
    model_type: str
    context_length: int
    parameter_count: int
    vocab_size: int
    default_precision: str
    moe: bool
    supports_lora: bool
    supports_tools: bool
    supports_image_input: bool
    supports_audio_input: bool
    task: str
    """One of `controlplane.checks.architectures`."""
    chat_template: str | None
    default_sampling_params: dict[str, float]
    config: dict[str, Any]
    """The whole config.json: checks of adapters need its sizes."""
    files: dict[str, dict[str, Any]]
    """File name → {"size", "sha256"}."""
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def validate_base_model(
    store: ModelStore, prefix: str, registered_files: Mapping[str, int], *, embedding: bool = False
) -> BaseModelReport:
    """Check the files (name → size) under `prefix`; raises `InvalidModel` with every problem found.

    `embedding`: of a model that is to embed or score texts.

    A store that cannot be reached raises `StorageUnavailable`: that says nothing about the model.
    """
    known = embedding_architectures() if embedding else architectures()
    served = {name: facts.supports_lora for name, facts in known.items()}
    problems, warnings = ProblemList(), list[str]()
    files = dict(registered_files)
    check_files(store, prefix, files, problems)
    try:
        weights = read_weights(store, prefix, files, problems, warnings)
        complete = not problems
        config, facts = _read_config(store, prefix, files, served, problems)
        if facts is not None:
            check_weights(weights, facts, complete, problems, warnings, embedding=embedding)
        vocabulary = facts.sizes.vocabulary if facts else None
        tokenizer = read_tokenizer(store, prefix, files, vocabulary, problems, warnings)
        sampling = read_generation_config(store, prefix, files, problems)
        if embedding and facts is not None:
            check_pooling(store, prefix, files, config, known[facts.architecture], problems, warnings)
        problems.raise_if_any()
        checksums = checksum_files(store, prefix, files)
    except ObjectNotFound as error:
        raise InvalidModel([Problem(error.key.removeprefix(prefix), "", "was not uploaded")]) from None
    assert facts is not None  # without facts there is a problem, and that was raised above
    return _report(config, facts, weights, tokenizer, sampling, known, checksums, warnings)


def check_file_name(name: str) -> str:
    """Why a name cannot be that of a model's file; empty when it can. Files lie flat, without folders."""
    if POOLING_CONFIG.fullmatch(name):
        return ""
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"a file name must have 1 to {MAX_NAME_BYTES} bytes"
    if "/" in name or "\\" in name or name in {".", ".."}:
        return "a file name must not name a folder"
    if not name.isprintable() or name != name.strip():
        return "a file name must be printable, without spaces around it"
    return ""


def check_files(store: ModelStore, prefix: str, files: dict[str, int], problems: ProblemList) -> None:
    """Names and sizes. Files that are refused or not whole are taken out of `files`: all else goes on."""
    for name, size in list(files.items()):
        refused = check_file_name(name) or _refused_kind(name)
        if refused:
            problems.add(name, "", refused)
        elif (found := store.head(prefix + name)) is None:
            problems.add(name, "", "was not uploaded")
        elif found.size != size:
            cut = "truncated: " if found.size < size else ""
            problems.add(name, "", f"{cut}{size} bytes were announced, {found.size} were uploaded")
        else:
            continue
        del files[name]


def checksum_files(store: ModelStore, prefix: str, files: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Read every file to its end: name → {"size", "sha256"}."""
    checksums: dict[str, dict[str, Any]] = {}
    for name, size in sorted(files.items()):
        digest = hashlib.sha256()
        read = 0
        for chunk in store.open_stream(prefix + name):
            digest.update(chunk)
            read += len(chunk)
        if read != size:
            raise InvalidModel([Problem(name, "", f"{size} bytes were announced, {read} could be read")])
        checksums[name] = {"size": size, "sha256": digest.hexdigest()}
    return checksums


def _refused_kind(name: str) -> str:
    return next((why for suffix, why in REFUSED_SUFFIXES.items() if name.lower().endswith(suffix)), "")


def _read_config(
    store: ModelStore,
    prefix: str,
    files: dict[str, int],
    served: dict[str, bool],
    problems: ProblemList,
) -> tuple[dict[str, Any], ConfigFacts | None]:
    if CONFIG_FILE not in files:
        problems.add(CONFIG_FILE, "", "is missing, or did not arrive whole")
        return {}, None
    try:
        config = read_json_object(store, prefix + CONFIG_FILE)
    except InvalidFile as error:
        problems.add_invalid(CONFIG_FILE, error)
        return {}, None
    return config, read_config(config, served, problems)


def _report(
    config: dict[str, Any],
    facts: ConfigFacts,
    weights: dict[str, Weight],
    tokenizer: TokenizerFacts,
    sampling: dict[str, float],
    known: dict[str, Architecture],
    checksums: dict[str, dict[str, Any]],
    warnings: list[str],
) -> BaseModelReport:
    architecture = known[facts.architecture]
    template = tokenizer.template if architecture.task == GENERATE else None
    dtypes = Counter[str]()
    for weight in weights.values():
        dtypes[weight.info.dtype] += weight.info.elements
    return BaseModelReport(
        architecture=facts.architecture,
        model_type=facts.model_type,
        context_length=facts.sizes.context,
        parameter_count=count_parameters(weights),
        vocab_size=facts.sizes.vocabulary,
        default_precision=facts.precision,
        moe=facts.moe,
        supports_lora=architecture.supports_lora,
        supports_tools=template is not None and template.supports_tools,
        supports_image_input=architecture.reads_images,
        supports_audio_input=architecture.reads_audio,
        task=architecture.task,
        chat_template=tokenizer.chat_template if template is not None else None,
        default_sampling_params=sampling,
        config=config,
        files=checksums,
        warnings=[*warnings, *_mixed(dtypes)],
    )


def _mixed(dtypes: Counter[str]) -> list[str]:
    if len(dtypes) < 2:
        return []
    return [f"the weights are of several dtypes: {', '.join(name for name, _ in dtypes.most_common())}"]
