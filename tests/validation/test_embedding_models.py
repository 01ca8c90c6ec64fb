"""Uploaded models that embed or score texts: what they must say of themselves besides what others must."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controlplane.checks.architectures import EMBED, GENERATE, SCORE
from controlplane.checks.problems import InvalidModel
from controlplane.storage import ObjectStore
from tests.validation.crafted import CONFIG, ones, safetensors
from workers.validation.model_files import BaseModelReport, validate_base_model

Upload = Callable[[Mapping[str, bytes]], str]
POOLING = {"1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}'}


def modules(*kinds: str) -> bytes:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return json.dumps(
        [
            {
                "idx": at,
                "path": paths.get(kind, f"{at}_{kind}"),
                "type": f"sentence_transformers.models.{kind}",
            }
            for at, kind in enumerate(kinds)
        ]
    ).encode()


@pytest.fixture
def check(
    object_store: ObjectStore, upload: Upload, base_files: dict[str, bytes]
) -> Callable[..., BaseModelReport]:
    def checked(embedding: bool = True, files: Any = (), **config: Any) -> BaseModelReport:
        whole = {**base_files, "config.json": json.dumps({**CONFIG, **config}).encode(), **dict(files)}
        sizes = {name: len(content) for name, content in whole.items()}
        return validate_base_model(object_store, upload(whole), sizes, embedding=embedding)

    return checked


def problems_of(check: Callable[..., BaseModelReport], **asked: Any) -> list[str]:
    with pytest.raises(InvalidModel) as caught:
        check(**asked)
    return [str(problem) for problem in caught.value.problems]


def test_what_writes_text_can_be_uploaded_to_embed_it(check):
    report = check()
    assert (report.task, report.chat_template, report.supports_lora) == (EMBED, None, False)
    assert any("no modules.json" in warning for warning in report.warnings)
    assert check(embedding=False).task == GENERATE


def test_the_files_of_sentence_transformers_are_whole(check):
    kinds = ("Transformer", "Pooling", "Normalize")
    assert "1_Pooling/config.json" in check(files={**POOLING, "modules.json": modules(*kinds)}).files
    missing = problems_of(check, files={"modules.json": modules(*kinds)})
    assert missing == ["1_Pooling/config.json: was not uploaded, and modules.json names it"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (modules("Transformer", "Dense"), "sentence_transformers.models.Dense"),
        (b"{}", "not a list of modules"),
        (b"[" * 60_000, "not a list of modules"),
        (b"\xff", "not a list of modules"),
    ],
)
def test_what_the_engine_would_leave_out_is_refused(check, content, said):
    [problem] = problems_of(check, files={**POOLING, "modules.json": content})
    assert said in problem


def test_what_only_embeds_is_no_base_model(check):
    assert check(architectures=["BertModel"]).task == EMBED
    [problem] = problems_of(check, embedding=False, architectures=["BertModel"])
    assert '"BertModel" is not served' in problem


def test_weights_are_those_of_an_embedding_model_with_and_without_the_rest(check):
    ids = ("I64", [2], b"\x00" * 16)
    bare = safetensors({"embed_tokens.weight": ones(10, 8), "embeddings.position_ids": ids})
    assert check(files={"model.safetensors": bare}).task == EMBED


def test_what_scores_pairs_has_one_label(check):
    cross = {"architectures": ["BertForSequenceClassification"]}
    assert check(**cross, id2label={"0": "LABEL_0"}).task == SCORE
    for labels in ({"0": "a", "1": "b"}, None, "x"):
        [problem] = problems_of(check, **cross, id2label=labels)
        assert "must have one label" in problem


def test_what_a_model_reads_besides_text_is_told_by_its_architecture(check):
    assert not check(embedding=False).supports_image_input
    seeing = check(embedding=False, architectures=["LlavaForConditionalGeneration"])
    assert (seeing.supports_image_input, seeing.supports_audio_input) == (True, False)
