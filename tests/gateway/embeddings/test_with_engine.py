"""Embeddings from a real engine: the numbers are the model's own, pooled as its files say."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.gateway.conftest import MODEL
from tests.gateway.engines import engine_running
from tests.gateway.examples.asking_all import wrong_answers
from tests.gateway.examples.table import clients_of, of_topics

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TEXTS = ["search_document: It is 7 degrees and rainy in Oslo.", "search_query: weather in Oslo"]
MODULES = [
    {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for index, (path, kind) in enumerate(
        (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    )
]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's model as one that means its tokens, in the layout of sentence-transformers."""
    folder = tmp_path_factory.mktemp("embedder")
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 128, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.fixture(scope="module")
def engine(embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine_running(embedder, tmp_path_factory.mktemp("engine"), task="embed") as url:
        yield url


@pytest.fixture
def running(world: Any, engine: str, start_gateway: Any) -> Any:
    base = world.add_base("acme", "embedder", chat=False, task="embed")
    deployment = world.add_deployment("acme", "embedder", base)
    world.add_replica(deployment, engine, "base-uid")
    world.load("acme", "embedder-1", base, deployment)
    return start_gateway()


@pytest.fixture
def client(running: Any, world: Any) -> openai.OpenAI:
    made: openai.OpenAI = running.openai(world.keys["acme"]).with_options(timeout=120)
    return made


def test_vectors_are_those_of_the_model_pooled_as_its_files_say(client, embedder):
    answer = client.embeddings.create(model="embedder", input=TEXTS)
    tokenizer, model = AutoTokenizer.from_pretrained(embedder), AutoModel.from_pretrained(embedder)
    counted = 0
    for text, given in zip(TEXTS, answer.data, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        counted += ids.shape[1]
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].float().mean(0)
        assert torch.nn.functional.cosine_similarity(mean, torch.tensor(given.embedding), dim=0) > 0.999
        assert math.isclose(math.hypot(*given.embedding), 1, abs_tol=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == counted


def test_fewer_dimensions_are_the_first_ones_and_base64_holds_the_same_numbers(client):
    whole, short, encoded = (
        client.embeddings.create(model="embedder", input=TEXTS[0], **asked).data[0].embedding
        for asked in ({"encoding_format": "float"}, {"encoding_format": "float", "dimensions": 16}, {})
    )
    scale = math.hypot(*whole[:16])
    assert (len(whole), len(short)) == (128, 16)
    assert short == pytest.approx([each / scale for each in whole[:16]], abs=1e-2)
    assert encoded == pytest.approx(whole, abs=1e-6)


def test_token_ids_and_lengths_are_as_they_were_asked_for(client, embedder):
    ids = AutoTokenizer.from_pretrained(embedder)(TEXTS[1]).input_ids
    by_text, by_ids, plain = (
        client.embeddings.create(model="embedder", input=given, extra_body=more).data[0].embedding
        for given, more in ((TEXTS[1], {}), (ids, {}), (ids, {"normalize": False}))
    )
    assert by_ids == pytest.approx(by_text, abs=1e-5)
    assert not math.isclose(math.hypot(*plain), 1, abs_tol=0.01)


def test_what_does_not_fit_is_refused_in_words_that_name_the_model(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="embedder", input="word " * 3000)
    assert "1024" in refused.value.message
    assert "base-uid" not in refused.value.message
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="embedder", input="x", dimensions=4096)


@pytest.mark.parametrize("package", clients_of(of_topics("embeddings")))
def test_the_examples_of_the_documents_do_what_they_say(running, world, package):
    assert wrong_answers(running.url, world.keys["acme"], package, of_topics("embeddings")) == []
