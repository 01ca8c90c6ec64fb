"""Reranking by a real engine: the scores are the cross-encoder's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tests.gateway.engines import engine_running

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
QUERY, DOCUMENTS = "rain", ["sun", "a wet day", "rain rain"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cross-encoder with random weights, large enough to tell texts apart."""
    folder = tmp_path_factory.mktemp("scorer")
    letters = [chr(code) for code in range(97, 123)]
    words = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = BertConfig(
        vocab_size=len(words), max_position_embeddings=64, num_labels=1, initializer_range=0.3, **sizes
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine_running(scorer, tmp_path_factory.mktemp("engine"), task="score") as url:
        yield url


def test_documents_are_ordered_by_the_models_own_scores(world, engine, scorer, start_gateway):
    base = world.add_base("acme", "scorer", chat=False, task="score")
    deployment = world.add_deployment("acme", "scorer", base)
    world.add_replica(deployment, engine, "base-uid")
    world.load("acme", "scorer-1", base, deployment)
    http = start_gateway().http(world.keys["acme"])
    asked: dict[str, Any] = {"model": "scorer", "query": QUERY, "documents": DOCUMENTS}
    answer = http.post("/inference/v1/rerank", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    tokenizer = PreTrainedTokenizerFast.from_pretrained(scorer)
    model = BertForSequenceClassification.from_pretrained(scorer).eval()
    with torch.no_grad():
        own = [
            torch.sigmoid(model(**tokenizer(QUERY, text, return_tensors="pt")).logits).item()
            for text in DOCUMENTS
        ]
    results = answer.json()["results"]
    assert [each["index"] for each in results] == sorted(range(3), key=lambda at: -own[at])
    for each in results:
        assert each["relevance_score"] == pytest.approx(own[each["index"]], abs=0.02)
        assert each["text"] == DOCUMENTS[each["index"]]
    assert answer.json()["usage"]["prompt_tokens"] > 0
    best = http.post("/inference/v1/rerank", json={**asked, "top_n": 1}, timeout=120).json()["results"]
    assert best == results[:1]
