"""Uploaded base models: a good one is known by its files, a bad one is told everything that is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from controlplane.checks.problems import InvalidModel
from controlplane.storage import ObjectStore
from tests.validation.crafted import CONFIG, base_tensors, ones, safetensors
from workers.validation.model_files import validate_base_model

Upload = Callable[[Mapping[str, bytes]], str]
QUICKSTART = Path(__file__).parents[2] / "quickstart" / "model"


def config(**changes: Any) -> bytes:
    return json.dumps(
        {key: value for key, value in {**CONFIG, **changes}.items() if value != "absent"}
    ).encode()


def sizes(files: Mapping[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in files.items()}


def problems_of(store: ObjectStore, upload: Upload, files: Mapping[str, bytes]) -> list[str]:
    with pytest.raises(InvalidModel) as caught:
        validate_base_model(store, upload(files), sizes(files))
    return [str(problem) for problem in caught.value.problems]


def test_a_good_model_is_known_by_its_files(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    report = validate_base_model(object_store, upload(base_files), sizes(base_files))
    assert report.architecture == "LlamaForCausalLM"
    assert (report.model_type, report.context_length, report.vocab_size) == ("llama", 64, 10)
    assert report.parameter_count == 2 * 80 + 8 + 2 * (8 * 8 * 2 + 4 * 8 * 2 + 12 * 8 * 3 + 16)
    assert (report.default_precision, report.moe, report.supports_lora) == ("BF16", False, True)
    assert report.supports_tools
    assert report.chat_template is not None
    assert report.warnings == []
    assert report.files["config.json"] == {
        "size": len(base_files["config.json"]),
        "sha256": hashlib.sha256(base_files["config.json"]).hexdigest(),
    }
    assert json.loads(json.dumps(report.to_dict()))["config"] == CONFIG


def test_the_quickstart_model_is_good(object_store: ObjectStore, upload: Upload) -> None:
    files = {path.name: path.read_bytes() for path in QUICKSTART.iterdir()}
    report = validate_base_model(object_store, upload(files), sizes(files))
    assert report.supports_lora
    assert report.warnings == []


def test_shards_are_one_model(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    files = sharded(base_files)
    assert validate_base_model(object_store, upload(files), sizes(files)).warnings == []
    files["consolidated.safetensors"] = safetensors({"layers.0.wq": ones(2)})
    report = validate_base_model(object_store, upload(files), sizes(files))
    assert report.warnings == ["consolidated.safetensors is not used: other files hold the weights"]


def test_a_template_in_its_own_file_is_the_one(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    base_files["chat_template.jinja"] = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    report = validate_base_model(object_store, upload(base_files), sizes(base_files))
    assert report.chat_template == base_files["chat_template.jinja"].decode()
    assert not report.supports_tools


def test_a_model_without_a_template_is_good(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    base_files["tokenizer_config.json"] = b"{}"
    assert validate_base_model(object_store, upload(base_files), sizes(base_files)).chat_template is None


BAD_CONFIGS: list[tuple[bytes, str]] = [
    (b"", "config.json: the file is empty"),
    (b"{", "config.json: not JSON: the text ends too early"),
    (b"[]", "config.json: expected a JSON object, found an array"),
    (b'{"a": 1, "a": 2}', 'config.json: the key "a" appears twice in one object'),
    (b"[" * 100_000, "config.json: nested deeper than 64 levels"),
    (b" " * (5 * 2**20), "config.json: larger than 4194304 bytes"),
    (config(architectures="absent"), "config.json: architectures: must be an array of one name, found null"),
    (
        config(architectures=["A", "B"]),
        "config.json: architectures: must be an array of one name, found an array",
    ),
    (config(architectures=["NoSuchModel"]), 'config.json: architectures: "NoSuchModel" is not served'),
    (config(auto_map={"AutoModel": "x.Y"}), "config.json: auto_map: names code of the model's own"),
    (
        config(quantization_config={"quant_method": "gptq"}),
        'config.json: quantization_config: quantized weights ("gptq") are not served',
    ),
    (config(torch_dtype="int8"), 'config.json: dtype: is "int8"; expected float16, bfloat16 or float32'),
    (config(hidden_size="absent"), "config.json: hidden_size: is missing"),
    (config(hidden_size="8"), 'config.json: hidden_size: is "8"; expected an integer from 1 to 131072'),
    (config(hidden_size=True), "config.json: hidden_size: is true; expected an integer"),
    (config(hidden_size=0), "config.json: hidden_size: is 0; expected an integer"),
    (config(hidden_size=10), "config.json: hidden_size: is 10; it must be a multiple of the 4 heads"),
    (config(num_key_value_heads=3), "config.json: num_key_value_heads: is 3; it must divide the 4 heads"),
    (config(num_hidden_layers=10**9), "config.json: num_hidden_layers: is 1000000000; expected"),
    (
        config(num_hidden_layers=3),
        "model.layers.2.self_attn.q_proj.weight: this weight is in none of the files",
    ),
    (
        config(num_hidden_layers=1),
        "model.safetensors: model.layers.1.input_layernorm.weight: config.json has num_hidden_layers 1",
    ),
    (
        config(num_key_value_heads=4),
        "model.safetensors: model.layers.0.self_attn.k_proj.weight: shape is [4, 8]; expected [8, 8] from",
    ),
    (
        config(head_dim=4),
        "model.safetensors: model.layers.0.self_attn.q_proj.weight: shape is [8, 8]; expected [16, 8]",
    ),
    (
        config(vocab_size=11),
        "model.safetensors: model.embed_tokens.weight: shape is [10, 8]; expected [11, 8]",
    ),
]


@pytest.mark.parametrize(("content", "reason"), BAD_CONFIGS, ids=[reason for _, reason in BAD_CONFIGS])
def test_a_bad_config_is_told_why(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes], content: bytes, reason: str
) -> None:
    base_files["config.json"] = content
    found = problems_of(object_store, upload, base_files)
    assert any(problem.startswith(reason) for problem in found), found


def weights(**changes: Any) -> bytes:
    tensors = base_tensors() | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return safetensors({name: tensor for name, tensor in tensors.items() if tensor is not None})


Q_PROJ = "model__layers__0__self_attn__q_proj__weight"
BAD_FILES: list[tuple[dict[str, bytes | None], str]] = [
    ({"config.json": None}, "config.json: is missing"),
    ({"model.safetensors": None}, "there are no weights: expected *.safetensors or *.bin files"),
    ({"model.safetensors": b""}, "model.safetensors: truncated: 0 bytes hold no safetensors header"),
    (
        {"model.safetensors": weights()[:-1]},
        "model.safetensors: model.layers.1.post_attention_layernorm.weight: truncated",
    ),
    ({"model.safetensors": weights() + b"x"}, "model.safetensors: 1 bytes follow the last tensor"),
    ({"model.safetensors": b"\x80\x02" + bytes(60)}, "model.safetensors: truncated, or no safetensors file"),
    (
        {"model.safetensors": weights(lm_head__weight=None)},
        "lm_head.weight: this weight is in none of the files",
    ),
    (
        {"model.safetensors": weights(**{Q_PROJ: ones(8, 9)})},
        "model.safetensors: model.layers.0.self_attn.q_proj.weight: shape is [8, 9]; expected [8, 8] from",
    ),
    (
        {"model.safetensors": weights(**{Q_PROJ: ("I8", [8, 8], bytes(64))})},
        "model.safetensors: model.layers.0.self_attn.q_proj.weight: dtype is I8; expected F16, BF16 or F32",
    ),
    (
        {"model.safetensors": weights(surprise=ones(1))},
        "model.safetensors: surprise: LlamaForCausalLM has no such weight",
    ),
    (
        {"second.safetensors": weights()},
        "second.safetensors: model.embed_tokens.weight: is in model.safetensors as well",
    ),
    ({"pytorch_model.bin": b"\x80\x02cos\nsystem\n."}, "pytorch_model.bin: truncated, or no checkpoint"),
    ({"model.pt": b"x"}, "model.pt: pickles can run code; save the weights as safetensors"),
    ({"MODEL.PKL": b"x"}, "MODEL.PKL: pickles can run code"),
    ({"modeling_llama.py": b"x"}, "modeling_llama.py: code is never run; remove it"),
    ({"tokenizer.json": None}, "there is no tokenizer: expected tokenizer.json"),
    ({"tokenizer.json": b"{}"}, "tokenizer.json: not a tokenizer: Object missing required field `model`"),
    ({"tokenizer.json": b"\xff"}, "tokenizer.json: not a tokenizer"),
    (
        {"tokenizer.json": b'{"model": {"type": "Py", "vocab": {"a": 1}}}'},
        'tokenizer.json: model.type "Py" is none of',
    ),
    ({"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {}}}'}, "tokenizer.json: model.vocab is empty"),
    ({"tokenizer.model": b"hello"}, "tokenizer.model: not a SentencePiece model"),
    ({"tokenizer_config.json": b'{"auto_map": {"A": "b"}}'}, "tokenizer_config.json: auto_map: names code"),
    (
        {"tokenizer_config.json": b'{"chat_template": 3}'},
        "tokenizer_config.json: chat_template: chat_template must be",
    ),
    (
        {"tokenizer_config.json": b'{"chat_template": "\\n{% if %}"}'},
        "tokenizer_config.json: chat_template: line 2: ",
    ),
    (
        {"chat_template.jinja": b"{{ ''.__class__ }}"},
        "chat_template.jinja: line 1: unsafe: access to attribute",
    ),
    ({"chat_template.jinja": b"\xff"}, "chat_template.jinja: not UTF-8: byte 0xff at byte 1"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_FILES, ids=[reason for _, reason in BAD_FILES])
def test_a_bad_file_is_named(
    object_store: ObjectStore,
    upload: Upload,
    base_files: dict[str, bytes],
    changes: dict[str, bytes | None],
    reason: str,
) -> None:
    files = {name: content for name, content in {**base_files, **changes}.items() if content is not None}
    found = problems_of(object_store, upload, files)
    assert any(problem.startswith(reason) for problem in found), found


BAD_NAMES = [
    "../config.json",
    "a/b.json",
    "a\\b",
    "..",
    ".",
    "",
    " a",
    "a\nb",
    "a\x00",
    "x" * 201,
    "a\u202eb",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes], name: str
) -> None:
    with pytest.raises(InvalidModel, match="a file name must"):
        validate_base_model(object_store, upload(base_files), {**sizes(base_files), name: 1})


def test_files_that_did_not_arrive_whole_are_named_together(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    announced = {**sizes(base_files), "README.md": 10_000, "tokenizer.model": 5}
    with pytest.raises(InvalidModel) as caught:
        validate_base_model(object_store, upload(base_files), announced)
    assert [str(problem) for problem in caught.value.problems] == [
        "README.md: truncated: 10000 bytes were announced, 10 were uploaded",
        "tokenizer.model: was not uploaded",
    ]
    assert str(caught.value).endswith("(and 1 more problems)")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (b"{}", "weight_map: must be an object of tensor name → file name"),
        (b'{"weight_map": {"a": 3}}', "weight_map: must be an object of tensor name → file name"),
        (
            b'{"weight_map": {"a": "third.safetensors"}}',
            'weight_map: names "third.safetensors", which was not uploaded',
        ),
    ],
)
def test_a_bad_index_is_told_why(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes], index: bytes, reason: str
) -> None:
    files = sharded(base_files) | {"model.safetensors.index.json": index}
    assert f"model.safetensors.index.json: {reason}" in problems_of(object_store, upload, files)


def test_a_tensor_that_the_index_promises_is_missed(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    files = sharded(base_files)
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"] |= {"ghost": "second.safetensors", "model.norm.weight": "second.safetensors"}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    found = problems_of(object_store, upload, files)
    assert "second.safetensors: ghost: the index promises this tensor here; it is in no file" in found
    assert (
        "second.safetensors: model.norm.weight: "
        "the index promises this tensor here; it is in first.safetensors" in found
    )


def test_the_weights_of_a_broken_file_are_not_called_missing_as_well(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    base_files["model.safetensors"] = base_files["model.safetensors"][:-1]
    assert len(problems_of(object_store, upload, base_files)) == 1


def test_many_problems_are_told_up_to_a_bound(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> None:
    base_files["config.json"] = config(num_hidden_layers=1000)
    assert len(problems_of(object_store, upload, base_files)) == 100


def sharded(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same model with its weights in two files and an index."""
    tensors = base_tensors()
    names = list(tensors)
    parts = {"first.safetensors": names[:9], "second.safetensors": names[9:]}
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    shards = {file: safetensors({name: tensors[name] for name in part}) for file, part in parts.items()}
    rest = {name: content for name, content in files.items() if name != "model.safetensors"}
    return {**rest, **shards, "model.safetensors.index.json": json.dumps(index).encode()}
