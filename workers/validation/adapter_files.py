"""Checks the files of a LoRA adapter against the base model that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from controlplane.checks.model_config import Sizes, read_sizes
from controlplane.checks.problems import InvalidFile, InvalidModel, Problem, ProblemList
from controlplane.checks.templates import too_long
from controlplane.checks.wording import shown
from controlplane.storage import ObjectNotFound
from workers.validation.adapter_config import ADAPTER_CONFIG, MAX_RANK, AdapterConfig, read_adapter_config
from workers.validation.adapter_weights import check_adapter_tensors, check_adapter_values
from workers.validation.chat_template import InvalidTemplate, TemplateFacts, check_chat_template
from workers.validation.expected_weights import LLAMA_LIKE
from workers.validation.json_files import read_json_object
from workers.validation.model_files import ModelStore, check_files, checksum_files
from workers.validation.safetensors_header import TensorInfo
from workers.validation.weights import read_weight_file

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
FIREWORKS_FILE = "fireworks.json"


@dataclass(frozen=True)
class BaseModelFacts:
    """What an adapter is checked against; `from_dict` takes `BaseModelReport.to_dict()` and `name`."""

    name: str
    architecture: str
    config: dict[str, Any]
    supports_lora: bool

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        return cls(facts["name"], facts["architecture"], facts["config"], facts["supports_lora"])


@dataclass(frozen=True)
class AdapterReport:
    """What is known of a good adapter. `to_dict` is what the database keeps as its facts."""

    r: int
    lora_alpha: float
    target_modules: list[str]
    parameter_count: int
    base_model_name: str
    """As adapter_config.json has it; often a path on the machine where it was trained."""
    conversation_config: dict[str, str] | None
    """{"style": "jinja", "template"} of fireworks.json."""
    supports_tools: bool
    files: dict[str, dict[str, Any]]
    """File name → {"size", "sha256"}."""
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def validate_adapter(
    store: ModelStore,
    prefix: str,
    registered_files: Mapping[str, int],
    base: BaseModelFacts,
    max_rank: int = MAX_RANK,
) -> AdapterReport:
    """Check the files (name → size) under `prefix`; raises `InvalidModel` with every problem found.

    A store that cannot be reached raises `StorageUnavailable`: that says nothing about the adapter.
    """
    problems, warnings = ProblemList(), list[str]()
    files = dict(registered_files)
    check_files(store, prefix, files, problems)
    sizes = _base_sizes(base, problems)
    try:
        config = _read_config(store, prefix, files, max_rank, problems)
        conversation, template = _read_conversation(store, prefix, files, problems)
        parameters = _check_weights(store, prefix, files, config, sizes, problems)
        problems.raise_if_any()
        checksums = checksum_files(store, prefix, files)
    except ObjectNotFound as error:
        raise InvalidModel([Problem(error.key.removeprefix(prefix), "", "was not uploaded")]) from None
    assert config is not None  # without one there is a problem, and that was raised above
    warnings += _compare_names(config.base_model_name, base.name)
    return AdapterReport(
        r=config.r,
        lora_alpha=config.lora_alpha,
        target_modules=config.target_modules,
        parameter_count=parameters,
        base_model_name=config.base_model_name,
        conversation_config=conversation,
        supports_tools=template is not None and template.supports_tools,
        files=checksums,
        warnings=warnings,
    )


def _base_sizes(base: BaseModelFacts, problems: ProblemList) -> Sizes | None:
    """The base's sizes, when its family is one whose adapters can be checked."""
    if not base.supports_lora:
        problems.add("", "", f"{base.architecture}, the base model's architecture, takes no adapters")
        return None
    return read_sizes(base.config, problems) if base.architecture in LLAMA_LIKE else None


def _read_config(
    store: ModelStore, prefix: str, files: dict[str, int], max_rank: int, problems: ProblemList
) -> AdapterConfig | None:
    if ADAPTER_CONFIG not in files:
        problems.add(ADAPTER_CONFIG, "", "is missing, or did not arrive whole")
        return None
    try:
        return read_adapter_config(read_json_object(store, prefix + ADAPTER_CONFIG), max_rank, problems)
    except InvalidFile as error:
        problems.add_invalid(ADAPTER_CONFIG, error)
        return None


def _read_conversation(
    store: ModelStore, prefix: str, files: dict[str, int], problems: ProblemList
) -> tuple[dict[str, str] | None, TemplateFacts | None]:
    if FIREWORKS_FILE not in files:
        return None, None
    try:
        content = read_json_object(store, prefix + FIREWORKS_FILE)
        template = _jinja_template(content.get("conversation_config"))
        if template is None:
            return None, None
        return {"style": "jinja", "template": template}, check_chat_template(template)
    except InvalidFile as error:
        problems.add_invalid(FIREWORKS_FILE, error)
    except InvalidTemplate as error:
        problems.add(FIREWORKS_FILE, "conversation_config.args.template", str(error))
    return None, None


def _jinja_template(conversation: Any) -> str | None:
    if conversation is None:
        return None
    if not isinstance(conversation, dict):
        raise InvalidFile(f"must be an object, found {shown(conversation)}", "conversation_config")
    if conversation.get("style") != "jinja":
        raise InvalidFile(
            f"is {shown(conversation.get('style'))}; expected jinja", "conversation_config.style"
        )
    arguments = conversation.get("args")
    template = arguments.get("template") if isinstance(arguments, dict) else None
    if not isinstance(template, str):
        raise InvalidFile(f"must be a string, found {shown(template)}", "conversation_config.args.template")
    if reason := too_long(template):
        raise InvalidFile(reason, "conversation_config.args.template")
    return template


def _check_weights(
    store: ModelStore,
    prefix: str,
    files: dict[str, int],
    config: AdapterConfig | None,
    sizes: Sizes | None,
    problems: ProblemList,
) -> int:
    """Returns the number of parameters."""
    name = next((name for name in WEIGHT_FILES if name in files), None)
    if name is None:
        problems.add("", "", f"there are no weights: expected {' or '.join(WEIGHT_FILES)}")
        return 0
    try:
        tensors = read_weight_file(store, prefix + name, files[name])
    except InvalidFile as error:
        problems.add_invalid(name, error)
        return 0
    if config is not None:
        _check_tensors(store, prefix, name, tensors, config, sizes, problems)
    return sum(info.elements for info in tensors.values())


def _check_tensors(
    store: ModelStore,
    prefix: str,
    name: str,
    tensors: dict[str, TensorInfo],
    config: AdapterConfig,
    sizes: Sizes | None,
    problems: ProblemList,
) -> None:
    modules = check_adapter_tensors(name, tensors, config, sizes, problems)
    if not problems:
        check_adapter_values(store, prefix + name, name, tensors, modules, problems)


def _compare_names(trained_on: str, base: str) -> list[str]:
    """Only the last part of the name is compared: the rest differs between machines and hubs."""
    last, wanted = (name.rstrip("/").rpartition("/")[2].lower() for name in (trained_on, base))
    if not last or last == wanted:
        return []
    return [f"adapter_config.json names the base model {shown(trained_on)}; it is checked against {base}"]
