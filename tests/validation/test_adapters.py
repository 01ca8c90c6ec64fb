"""Uploaded adapters, checked against the base model that they are for."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controlplane.checks.problems import InvalidModel
from controlplane.storage import ObjectStore
from tests.validation.crafted import ADAPTER_CONFIG, CONFIG, Tensor, adapter_tensors, ones, safetensors
from workers.validation.adapter_files import BaseModelFacts, validate_adapter

Upload = Callable[[Mapping[str, bytes]], str]
BASE = BaseModelFacts("accounts/test/models/base", "LlamaForCausalLM", CONFIG, supports_lora=True)
LAYER = "base_model.model.model.layers.0.self_attn."


def config(**changes: Any) -> bytes:
    return json.dumps({**ADAPTER_CONFIG, **changes}).encode()


def sizes(files: Mapping[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in files.items()}


def problems_of(
    store: ObjectStore, upload: Upload, files: Mapping[str, bytes], base: BaseModelFacts = BASE
) -> list[str]:
    with pytest.raises(InvalidModel) as caught:
        validate_adapter(store, upload(files), sizes(files), base)
    return [str(problem) for problem in caught.value.problems]


def test_a_good_adapter_is_known_by_its_files(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes]
) -> None:
    report = validate_adapter(object_store, upload(adapter_files), sizes(adapter_files), BASE)
    assert (report.r, report.lora_alpha, report.target_modules) == (4, 8.0, ["q_proj", "v_proj"])
    assert report.parameter_count == 2 * (32 * 3 + 16)
    assert report.conversation_config is not None
    assert report.conversation_config["style"] == "jinja"
    assert report.supports_tools
    assert report.warnings == []
    assert report.files.keys() == adapter_files.keys()
    json.dumps(report.to_dict())


def test_the_base_is_known_by_the_facts_of_its_check() -> None:
    facts = {"architecture": "LlamaForCausalLM", "config": CONFIG, "supports_lora": True, "other": 1}
    assert BaseModelFacts.from_dict({**facts, "name": BASE.name}) == BASE


def test_an_adapter_without_a_conversation_is_good(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes]
) -> None:
    for content in (None, b"{}", b'{"base_model": "accounts/test/models/base"}'):
        files = {name: data for name, data in adapter_files.items() if name != "fireworks.json"}
        files |= {"fireworks.json": content} if content else {}
        report = validate_adapter(object_store, upload(files), sizes(files), BASE)
        assert report.conversation_config is None


def test_another_base_model_is_only_warned_about(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes]
) -> None:
    adapter_files["adapter_config.json"] = config(base_model_name_or_path="hub/other-7b")
    report = validate_adapter(object_store, upload(adapter_files), sizes(adapter_files), BASE)
    assert report.warnings == [
        'adapter_config.json names the base model "hub/other-7b"; '
        "it is checked against accounts/test/models/base"
    ]


def test_the_servers_largest_rank_counts(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes]
) -> None:
    with pytest.raises(InvalidModel, match="r: is 4; expected an integer from 1 to 2"):
        validate_adapter(object_store, upload(adapter_files), sizes(adapter_files), BASE, max_rank=2)


BAD_CONFIGS: list[tuple[bytes, str]] = [
    (b"", "the file is empty"),
    (b"[1]", "expected a JSON object, found an array"),
    (config(peft_type="IA3"), 'peft_type: is "IA3"; expected LORA'),
    (config(peft_type=None), "peft_type: is null; expected LORA"),
    (config(r=0), "r: is 0; expected an integer from 1 to 64"),
    (config(r=65), "r: is 65; expected an integer from 1 to 64"),
    (config(r="8"), 'r: is "8"; expected an integer from 1 to 64'),
    (config(r=True), "r: is true; expected an integer"),
    (config(r=4.0), "r: is 4.0; expected an integer"),
    (config(lora_alpha=0), "lora_alpha: is 0; expected a number above 0"),
    (config(lora_alpha=None), "lora_alpha: is null; expected a number above 0"),
    (config(lora_alpha=True), "lora_alpha: is true; expected a number above 0"),
    (config(target_modules=None), "target_modules: must be an array of module names, found null"),
    (config(target_modules="(a+)+$"), 'target_modules: must be an array of module names, found "(a+)+$"'),
    (config(target_modules=[]), "target_modules: must be an array of module names"),
    (
        config(target_modules=["q_proj", "lm_head"]),
        "target_modules: lm_head cannot be adapted; allowed are q_proj",
    ),
    (config(use_dora=True), "use_dora: DoRA adapters are not served"),
    (
        config(modules_to_save=["lm_head"]),
        "modules_to_save: adapters that replace whole modules are not served",
    ),
    (config(trainable_token_indices=[1]), "trainable_token_indices: adapters that replace token embeddings"),
    (config(bias="all"), 'bias: is "all"; adapters with biases are not served'),
    (config(lora_bias=True), "lora_bias: adapters with biases are not served"),
    (config(rank_pattern={"(a+)+$": 8}), "rank_pattern: every module must have the rank r"),
    (config(alpha_pattern={"q_proj": 8}), "alpha_pattern: every module must have the same lora_alpha"),
    (config(layer_replication=[[0, 1]]), "layer_replication: adapters that copy layers are not served"),
    (config(init_lora_weights="pissa"), 'init_lora_weights: "pissa" changes the base\'s own weights'),
    (config(fan_in_fan_out=True), "fan_in_fan_out: adapters of transposed layers are not served"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_CONFIGS, ids=[reason for _, reason in BAD_CONFIGS])
def test_a_bad_config_is_told_why(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes], content: bytes, reason: str
) -> None:
    adapter_files["adapter_config.json"] = content
    found = problems_of(object_store, upload, adapter_files)
    assert any(problem.startswith(f"adapter_config.json: {reason}") for problem in found), found


@pytest.mark.parametrize(
    "config_change", [{"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"unknown": {}}]
)
def test_what_the_engine_serves_passes(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes], config_change: dict[str, Any]
) -> None:
    adapter_files["adapter_config.json"] = config(**config_change)
    assert validate_adapter(object_store, upload(adapter_files), sizes(adapter_files), BASE).r == 4


def filled(dtype: str, shape: list[int], value: bytes) -> Tensor:
    count = shape[0] * shape[1]
    return dtype, shape, ones(1)[2] * (count - 1) + value if dtype == "BF16" else value * count


def with_tensors(**changes: Tensor | None) -> bytes:
    tensors: dict[str, Tensor | None] = {**adapter_tensors()}
    tensors |= {LAYER + name.replace("__", "."): tensor for name, tensor in changes.items()}
    return safetensors({name: tensor for name, tensor in tensors.items() if tensor is not None})


Q_A, Q_B, V_B = "q_proj__lora_A__weight", "q_proj__lora_B__weight", "v_proj__lora_B__weight"
BAD_WEIGHTS: list[tuple[bytes, str]] = [
    (b"", "truncated: 0 bytes hold no safetensors header"),
    (safetensors({}), "the file holds no tensors"),
    (with_tensors()[:-1], "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight: truncated"),
    (
        with_tensors(**{Q_A: ones(4, 9)}),
        f"{LAYER}q_proj.lora_A.weight: shape is [4, 9]; expected [4, 8] from r 4",
    ),
    (with_tensors(**{Q_A: ones(8, 8)}), f"{LAYER}q_proj.lora_A.weight: shape is [8, 8]; expected [4, 8]"),
    (with_tensors(**{V_B: ones(8, 4)}), f"{LAYER}v_proj.lora_B.weight: shape is [8, 4]; expected [4, 4]"),
    (with_tensors(**{Q_B: None}), f"{LAYER}q_proj.lora_B.weight: is missing: each module needs A and B"),
    (
        with_tensors(**{Q_A: ("I8", [4, 8], bytes(32))}),
        f"{LAYER}q_proj.lora_A.weight: dtype is I8; expected F16, BF16 or F32",
    ),
    (
        with_tensors(k_proj__lora_A__weight=ones(4, 8), k_proj__lora_B__weight=ones(4, 4)),
        f"{LAYER}k_proj.lora_A.weight: k_proj is not in target_modules of adapter_config.json",
    ),
    (
        with_tensors(lm_head__lora_A__weight=ones(4, 8)),
        f"{LAYER}lm_head.lora_A.weight: is no LoRA weight of a module",
    ),
    (with_tensors(q_proj__lora_embedding_A=ones(4, 8)), f"{LAYER}q_proj.lora_embedding_A: is no LoRA weight"),
    (
        with_tensors(q_proj__lora_magnitude_vector=ones(8)),
        f"{LAYER}q_proj.lora_magnitude_vector: is no LoRA weight",
    ),
    (
        safetensors({LAYER.replace(".0.", ".2.") + "q_proj.lora_A.weight": ones(4, 8)}),
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight: the base model has 2 layers",
    ),
    (safetensors({"../q_proj.lora_A.weight": ones(4, 8)}), "../q_proj.lora_A.weight: is no LoRA weight"),
    (
        with_tensors(**{Q_B: filled("BF16", [8, 4], b"\xc0\x7f")}),
        f"{LAYER}q_proj.lora_B.weight: holds a value that is infinite or not a number",
    ),
    (
        with_tensors(**{Q_B: filled("F32", [8, 4], struct.pack("<f", float("inf")))}),
        f"{LAYER}q_proj.lora_B.weight: holds a value that is infinite",
    ),
    (
        with_tensors(**{Q_B: filled("F16", [8, 4], struct.pack("<e", float("-inf")))}),
        f"{LAYER}q_proj.lora_B.weight: holds a value that is infinite",
    ),
    (
        safetensors(
            {
                name: (dtype, shape, bytes(len(data)) if "lora_B" in name else data)
                for name, (dtype, shape, data) in adapter_tensors().items()
            }
        ),
        "the adapter changes nothing: of every module, lora_A or lora_B is all zero",
    ),
]


@pytest.mark.parametrize(("content", "reason"), BAD_WEIGHTS, ids=[reason for _, reason in BAD_WEIGHTS])
def test_bad_weights_are_told_why(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes], content: bytes, reason: str
) -> None:
    adapter_files["adapter_model.safetensors"] = content
    found = problems_of(object_store, upload, adapter_files)
    assert any(problem.startswith(f"adapter_model.safetensors: {reason}") for problem in found), found


@pytest.mark.parametrize("value", [3.3e38, -3.3e38, 0.0, 1e-40])
def test_large_and_small_values_are_fine(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes], value: float
) -> None:
    adapter_files["adapter_model.safetensors"] = with_tensors(
        **{Q_B: filled("F32", [8, 4], struct.pack("<f", value))}
    )
    assert validate_adapter(object_store, upload(adapter_files), sizes(adapter_files), BASE).r == 4


BAD_FILES: list[tuple[str, bytes | None, str]] = [
    ("adapter_config.json", None, "adapter_config.json: is missing"),
    ("adapter_model.safetensors", None, "there are no weights: expected adapter_model.safetensors or"),
    ("optimizer.pt", b"x", "optimizer.pt: pickles can run code"),
    ("fireworks.json", b"{", "fireworks.json: not JSON"),
    (
        "fireworks.json",
        b'{"conversation_config": 3}',
        "fireworks.json: conversation_config: must be an object, found 3",
    ),
    (
        "fireworks.json",
        b'{"conversation_config": {"style": "alpaca"}}',
        'fireworks.json: conversation_config.style: is "alpaca"; expected jinja',
    ),
    (
        "fireworks.json",
        b'{"conversation_config": {"style": "jinja", "args": []}}',
        "fireworks.json: conversation_config.args.template: must be a string, found null",
    ),
    (
        "fireworks.json",
        b'{"conversation_config": {"style": "jinja", "args": {"template": "a\\n{{ x"}}}',
        "fireworks.json: conversation_config.args.template: line 2: unexpected end of template",
    ),
    (
        "fireworks.json",
        b'{"conversation_config": {"style": "jinja", "args": {"template": "%s"}}}' % (b"a" * 65_537),
        "fireworks.json: conversation_config.args.template: has 65,537 characters; a template that goes with",
    ),
]


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES, ids=[reason for _, _, reason in BAD_FILES])
def test_a_bad_file_is_named(
    object_store: ObjectStore,
    upload: Upload,
    adapter_files: dict[str, bytes],
    name: str,
    content: bytes | None,
    reason: str,
) -> None:
    adapter_files.pop(name, None)
    found = problems_of(object_store, upload, adapter_files | ({name: content} if content else {}))
    assert any(problem.startswith(reason) for problem in found), found


def test_a_base_that_takes_no_adapters_is_named(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes]
) -> None:
    base = BaseModelFacts("accounts/test/models/gpt", "GPT2LMHeadModel", CONFIG, supports_lora=False)
    assert problems_of(object_store, upload, adapter_files, base) == [
        "GPT2LMHeadModel, the base model's architecture, takes no adapters"
    ]


def test_of_an_unknown_layout_the_ranks_are_compared(
    object_store: ObjectStore, upload: Upload, adapter_files: dict[str, bytes]
) -> None:
    base = BaseModelFacts("accounts/test/models/phi", "Phi3ForCausalLM", CONFIG, supports_lora=True)
    assert validate_adapter(object_store, upload(adapter_files), sizes(adapter_files), base).r == 4
    adapter_files["adapter_model.safetensors"] = with_tensors(**{Q_A: ones(8, 8)})
    assert problems_of(object_store, upload, adapter_files, base) == [
        f"adapter_model.safetensors: {LAYER}q_proj.lora_A.weight: "
        "shape is [8, 8]; expected two sizes with r 4"
    ]
