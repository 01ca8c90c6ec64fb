"""Embeddings and reranking as published clients ask for them, answered by an engine that the tests steer."""

import openai
import pytest
from sqlalchemy import select

from controlplane.resources.tables import LedgerRow
from tests.gateway.serving import wait_until


@pytest.fixture
def models(served):
    """`embedder` and `scorer` beside what is served."""
    for name, task in (("embedder", "embed"), ("scorer", "score")):
        base = served.world.add_base("acme", name, chat=False, task=task)
        deployment = served.world.add_deployment("acme", name, base)
        served.world.add_replica(deployment, served.engine_url, "base-uid")
        served.world.load("acme", f"{name}-1", base, deployment)
    served.running.until_routed(lambda gateway: ("acme", "scorer") in gateway.snapshot.by_model)
    return served


def test_texts_are_embedded(models):
    answer = models.openai.embeddings.create(model="embedder", input=["a", "b"], encoding_format="float")
    assert [each.embedding for each in answer.data] == [[0.5, 0.25]] * 2
    assert [each.index for each in answer.data] == [0, 1]
    assert answer.model == "accounts/acme/models/embedder"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 7)


def test_the_clients_own_base64_is_read_back_as_numbers(models):
    answer = models.openai.embeddings.create(model="embedder", input="a")
    assert models.engine.bodies[-1]["encoding_format"] == "base64"
    assert answer.data[0].embedding == [0.5, 0.25]


@pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_every_kind_of_input_is_passed_on(models, given):
    asked = {"model": "embedder", "input": given, "dimensions": 2, "normalize": False, "user": "u"}
    assert models.http.post("/inference/v1/embeddings", json=asked).status_code == 200
    [body] = models.engine.bodies
    assert body == {"model": "base-uid", "input": given, "dimensions": 2, "use_activation": False}


def test_documents_are_ordered_by_their_relevance(models):
    asked = {"model": "scorer", "query": "q", "documents": ["a", "b", "c"], "top_n": 2}
    answer = models.http.post("/v1/rerank", json=asked).json()
    assert answer["results"] == [
        {"index": 2, "relevance_score": 0.2, "text": "c"},
        {"index": 1, "relevance_score": 0.1, "text": "b"},
    ]
    assert answer["model"] == "accounts/acme/models/scorer"
    bare = models.http.post("/v1/rerank", json={**asked, "return_documents": False}).json()
    assert bare["results"][0] == {"index": 2, "relevance_score": 0.2}
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


NOMIC = "nomic-ai/nomic-embed-text-v1.5"


def test_the_documented_example_names_its_model_as_the_hub_does(served):
    """A stranger's model that claims the name is never asked."""
    for account in ("rival", "fireworks"):
        base = served.world.add_base(account, "nomic", chat=False, public=True, task="embed", hub=NOMIC)
        deployment = served.world.add_deployment(account, "nomic", base)
        served.world.add_replica(deployment, served.engine_url, "base-uid")
        served.world.load(account, "nomic-1", base, deployment, public=True)
    served.running.until_routed(lambda gateway: len(gateway.snapshot.by_hub_name.get(NOMIC, ())) == 2)
    response = served.openai.embeddings.create(
        model=NOMIC,
        input="search_document: I like Christmas movies, can you make any recommendations?",
        dimensions=128,
    )
    assert response.model == f"accounts/{served.running.gateway.settings.platform_account}/models/nomic"
    assert served.engine.bodies[0]["dimensions"] == 128


def test_usage_is_written_to_the_ledger(models):
    models.openai.embeddings.create(model="embedder", input="a")

    def entries():
        with models.world.db.session() as session:
            return session.scalars(select(LedgerRow)).all()

    [entry] = wait_until(entries)
    assert (entry.endpoint, entry.prompt_tokens, entry.completion_tokens) == ("embeddings", 7, 0)


QUESTION = [{"role": "user", "content": "count"}]
ASKED = {
    "chat/completions": {"messages": QUESTION},
    "completions": {"prompt": "x"},
    "messages": {"messages": QUESTION},
    "responses": {"input": "x"},
    "embeddings": {"input": "x"},
    "rerank": {"query": "x", "documents": ["x"]},
}
TASKS = {"embeddings": "embedder", "rerank": "scorer"}
WORDS = {"llama": "writes text", "embedder": "embeds text", "scorer": "scores documents"}


@pytest.mark.parametrize("endpoint", ASKED)
def test_a_model_is_only_asked_for_what_it_does(models, endpoint):
    for name, words in WORDS.items():
        answer = models.http.post(f"/v1/{endpoint}", json={"model": name, **ASKED[endpoint]})
        if name == TASKS.get(endpoint, "llama"):
            assert answer.status_code == 200
        else:
            assert answer.status_code == 400
            assert words in answer.json()["error"]["message"]


def test_a_chat_with_a_model_that_embeds_is_refused_by_the_clients_package(models):
    with pytest.raises(openai.BadRequestError, match="it is asked with /embeddings"):
        models.openai.chat.completions.create(model="embedder", messages=QUESTION)


WRONG = [
    ("embeddings", {}, "input", "'input' must be a non-empty string, token ids, or a list of either"),
    ("embeddings", {"input": []}, "input", "'input' must be"),
    ("embeddings", {"input": ["a", ""]}, "input", "'input' must be"),
    ("embeddings", {"input": [{"text": "a"}]}, "input", "'input' must be"),
    ("embeddings", {"input": ["a"] * 2049}, "input", "2048 texts at most"),
    ("embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format", "one of float, base64"),
    ("embeddings", {"input": "a", "dimensions": 0}, "dimensions", "of at least 1"),
    ("embeddings", {"input": "a", "prompt_template": "x"}, "prompt_template", "not supported"),
    ("embeddings", {"input": "a", "frobnicate": 1}, "frobnicate", "Extra inputs are not permitted"),
    ("embeddings", {"input": "a", "stream": True}, "stream", "Extra inputs are not permitted"),
    ("rerank", {"documents": ["a"]}, "query", "'query' must be a non-empty string"),
    ("rerank", {"query": "q"}, "documents", "'documents' must be a list of non-empty strings"),
    ("rerank", {"query": "q", "documents": ["a"], "task": "x"}, "task", "not supported"),
    ("rerank", {"query": "q", "documents": ["a"], "top_n": 0}, "top_n", "of at least 1"),
]


@pytest.mark.parametrize(("endpoint", "wrong", "param", "message"), WRONG)
def test_what_is_wrong_is_refused_by_name(models, endpoint, wrong, param, message):
    answer = models.http.post(f"/v1/{endpoint}", json={"model": TASKS[endpoint], **wrong})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]
    assert models.engine.requests == []


def test_an_engine_that_fails_is_told_as_such(models):
    models.engine.fault = "500"
    answer = models.http.post("/v1/embeddings", json={"model": "embedder", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "BAD_GATEWAY")
