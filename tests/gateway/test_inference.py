"""What callers of the inference API see, asked through the published openai package."""

import json

import httpx
import openai
import pytest
from fireworks import Fireworks
from sqlalchemy import delete

from controlplane.resources.tables import ApiKeyRow
from tests.gateway.serving import wait_until

QUESTION = [{"role": "user", "content": "count"}]


def test_a_chat_answers_under_the_models_own_name(served):
    answer = served.openai.chat.completions.create(model=served.base, messages=QUESTION)
    assert answer.choices[0].message.content == "one two three"
    assert answer.model == served.base
    assert answer.usage.total_tokens == 10
    assert served.engine.bodies[0]["model"] == "base-uid"


def test_an_addon_is_asked_for_by_the_name_it_has_in_the_engine(served):
    answer = served.openai.chat.completions.create(model="tuned", messages=QUESTION)
    assert answer.model == served.addon
    assert served.engine.bodies[0]["model"] == "addon-uid"


@pytest.mark.parametrize("prefix", ["/v1", "/inference/v1"])
def test_completions_answer_under_both_prefixes(served, prefix):
    answer = served.http.post(f"{prefix}/completions", json={"model": served.base, "prompt": "count"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["choices"][0]["text"] == "one two three"
    assert answer.headers["fireworks-prompt-tokens"] == "7"
    assert answer.headers["fireworks-cached-prompt-tokens"] == "4"
    assert "system_fingerprint" not in body
    assert "kv_transfer_params" not in body


async def test_the_async_client_streams(served):
    async with openai.AsyncOpenAI(base_url=f"{served.running.url}/v1", api_key=served.key) as client:
        stream = await client.chat.completions.create(model=served.base, messages=QUESTION, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "one two three"
    assert {chunk.model for chunk in chunks} == {served.base}


@pytest.fixture(params=[{"ngram_speculation_length": 3}, {"draft_model": "accounts/acme/models/small"}])
def guessing(world, engine_url, start_gateway, request):
    """`acme`'s deployment guesses tokens ahead."""
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base, **request.param)
    world.add_replica(deployment, engine_url, "base-uid")
    world.load("acme", "llama-1", base, deployment)
    return start_gateway().http(world.keys["acme"])


BESIDE_GUESSES = [
    ({"min_p": 0.1}, "min_p"),
    ({"logit_bias": {"20": 5}}, "logit_bias"),
    ({"typical_p": 0.5}, "typical_p"),
    ({"mirostat_target": 0}, "mirostat_target"),
    ({"mirostat_target": 2, "mirostat_lr": 0.1}, "mirostat_target"),
]


@pytest.mark.parametrize(("asked", "name"), BESIDE_GUESSES)
def test_what_does_not_go_with_guessing_ahead_is_refused_by_name(guessing, engine, asked, name):
    for path, told in (("chat/completions", {"messages": QUESTION}), ("completions", {"prompt": "count"})):
        answer = guessing.post(f"/v1/{path}", json={"model": "llama", **told, **asked})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "UNSUPPORTED_PARAMETER", name)
        assert "guesses tokens ahead (by draftModel or ngramSpeculationLength)" in error["message"]
    assert engine.requests == []


ASKS_FOR_NOTHING = {"min_p": 0, "logit_bias": {}, "typical_p": 1, "top_k": 5, "top_p": 0.9, "seed": 3, "n": 2}


def test_all_else_goes_with_guessing_ahead(guessing):
    asked = {"model": "llama", "prompt": "count", "frequency_penalty": 1, "logprobs": 1, **ASKS_FOR_NOTHING}
    assert guessing.post("/v1/completions", json=asked).status_code == 200
    greedy = {"model": "llama", "prompt": "count", "temperature": 0, "typical_p": 0.5}
    assert guessing.post("/v1/completions", json=greedy).status_code == 200


def test_the_fireworks_package_asks_and_streams(served):
    client = Fireworks(base_url=served.running.url, api_key=served.key, account_id="acme")
    answer = client.chat.completions.create(model=served.base, messages=QUESTION)
    assert answer.choices[0].message.content == "one two three"
    chunks = list(client.completions.create(model=served.base, prompt="count", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "one two three"
    assert chunks[-1].usage.total_tokens == 10


def test_usage_rides_on_the_chunk_with_the_finish_reason(served):
    chunks = list(served.openai.completions.create(model=served.base, prompt="count", stream=True))
    assert [chunk.usage is None for chunk in chunks] == [True, True, False]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4


def test_an_openai_caller_that_asks_for_usage_finds_it_in_a_chunk_of_its_own(served):
    stream = served.openai.chat.completions.create(
        model=served.base, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.usage is None for chunk in chunks] == [True, True, True, False]
    assert chunks[-1].choices == []
    assert chunks[2].choices[0].finish_reason == "stop"


def test_a_stream_is_marked_as_one_and_ends_with_done(served):
    asked = {"model": served.base, "prompt": "count", "stream": True}
    with served.http.stream("POST", "/v1/completions", json=asked) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["usage"] is None


def test_a_chat_asking_for_logprobs_by_number_reads_them_in_the_completions_shape(served):
    answer = served.http.post(
        "/v1/chat/completions", json={"model": served.base, "messages": QUESTION, "logprobs": 1}
    ).json()
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["one ", "two ", "three"]
    assert logprobs["text_offset"] == [0, 4, 8]
    assert logprobs["top_logprobs"][0] == {"one ": -0.5}


def test_models_lists_what_the_caller_can_query(served):
    listed = {model.id: model for model in served.openai.models.list()}
    assert set(listed) == {served.base, served.addon}
    card = listed[served.base].model_dump()
    assert card["kind"] == "HF_BASE_MODEL"
    assert card["context_length"] == 128
    assert card["supports_chat"] is True
    assert served.openai.models.retrieve(served.addon).id == served.addon


def test_another_account_sees_and_reaches_nothing_of_it(served):
    rival = served.running.openai(served.world.keys["rival"])
    assert list(rival.models.list()) == []
    refusals = set()
    for name in (served.base, served.addon, "accounts/acme/deployments/main", "accounts/acme/models/none"):
        with pytest.raises(openai.NotFoundError) as refused:
            rival.chat.completions.create(model=name, messages=QUESTION)
        refusals.add(json.dumps(refused.value.body, sort_keys=True))
    assert refusals == {
        json.dumps(
            {
                "code": "NOT_FOUND",
                "message": "Model not found, inaccessible, and/or not deployed",
                "param": "model",
                "type": "error",
            }
        )
    }
    assert served.engine.requests == []


def test_a_visitors_prompts_are_cached_apart(served):
    world = served.world
    base = world.add_base("acme", "open", public=True)
    deployment = world.add_deployment("acme", "public", base)
    world.add_replica(deployment, served.engine_url, "base-uid")
    world.load("acme", "open-1", base, deployment, public=True)
    served.running.until_routed(lambda gateway: ("acme", "open") in gateway.snapshot.by_model)
    for account in ("acme", "rival"):
        client = served.running.openai(world.keys[account])
        client.chat.completions.create(model="accounts/acme/models/open", messages=QUESTION)
    own, visiting = served.engine.bodies
    assert "cache_salt" not in own
    assert len(visiting["cache_salt"]) == 64


def test_chat_with_a_model_that_has_no_chat_template_points_to_completions(served):
    world = served.world
    base = world.add_base("acme", "plain", chat=False)
    deployment = world.add_deployment("acme", "plain", base)
    world.add_replica(deployment, served.engine_url, "base-uid")
    world.load("acme", "plain-1", base, deployment)
    served.running.until_routed(lambda gateway: ("acme", "plain") in gateway.snapshot.by_model)
    with pytest.raises(openai.NotFoundError, match="use /completions API instead"):
        served.openai.chat.completions.create(model="plain", messages=QUESTION)
    assert served.openai.completions.create(model="plain", prompt="count").choices


def test_a_wrong_key_a_missing_key_and_x_api_key(served):
    asked = {"model": served.base, "messages": QUESTION}
    for headers in ({}, {"Authorization": "Bearer fw_wrong"}, {"Authorization": "Basic eA=="}):
        answer = httpx.post(f"{served.running.url}/v1/chat/completions", json=asked, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
    answer = httpx.post(
        f"{served.running.url}/v1/chat/completions", json=asked, headers={"X-Api-Key": served.key}
    )
    assert answer.status_code == 200


def test_errors_of_every_kind_have_the_same_shape(served):
    http = served.http
    answers = {
        404: http.get("/inference/v1/nothing"),
        405: http.get("/v1/chat/completions"),
        400: http.post("/v1/completions", content=b"{not json"),
        413: http.post("/v1/completions", content=b"x" * (11 * 1024 * 1024)),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answers[405].headers["allow"] == "POST"


def test_bad_requests_name_their_field(served):
    cases = {
        "Extra inputs are not permitted, field: 'frobnicate', value: 1": {"frobnicate": 1},
        "'messages' must be a list of at least one message": {"messages": []},
        "'safe_tokenization' is not supported": {"safe_tokenization": True},
        "'temperature' must be a number from 0 to 2, not 3": {"temperature": 3},
    }
    for message, wrong in cases.items():
        asked = {"model": served.base, "messages": QUESTION, **wrong}
        answer = served.http.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == message
        assert answer.json()["error"]["param"] == next(iter(wrong))
    answer = served.http.post("/v1/chat/completions", json={"messages": QUESTION})
    assert answer.json()["error"]["param"] == "model"
    assert served.engine.requests == []


def test_deep_json_is_refused_and_the_next_request_is_served(served):
    for depth in (100, 1_000_000):
        body = b'{"model": "llama", "metadata": ' + b"[" * depth + b"]" * depth + b"}"
        answer = served.http.post("/v1/completions", content=body)
        assert answer.status_code == 400
        assert "levels deep" in answer.json()["error"]["message"]
    assert served.openai.completions.create(model=served.base, prompt="count").choices


def test_a_prompt_that_leaves_too_little_is_refused_only_when_the_caller_wants_that(served):
    asked = {"model": served.base, "prompt": "w " * 100, "max_tokens": 50}
    answer = served.http.post("/v1/completions", json={**asked, "context_length_exceeded_behavior": "error"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "the prompt has 101 tokens and 50 are asked for, but the model's context length is 128"
    )
    assert served.http.post("/v1/completions", json=asked).status_code == 200
    fits = {**asked, "prompt": "w", "context_length_exceeded_behavior": "error"}
    assert served.http.post("/v1/completions", json=fits).status_code == 200


def test_nothing_of_the_caller_reaches_the_engine_but_the_request(served):
    served.http.post(
        "/v1/completions",
        json={"model": served.base, "prompt": "count"},
        headers={"X-Request-Id": "mine", "X-data-parallel-rank": "1", "Cookie": "a=b"},
    )
    seen = served.engine.headers[0]
    assert not {"authorization", "x-api-key", "cookie", "x-data-parallel-rank"} & seen.keys()
    assert seen["x-request-id"] != "mine"


def test_engine_admin_paths_are_not_reachable(served):
    for path in ("/v1/load_lora_adapter", "/inference/v1/load_lora_adapter", "/tokenize", "/v1/tokenize"):
        assert served.http.post(path, json={}).status_code == 404
    assert served.engine.requests == []


def test_the_probes_answer_without_a_key_and_the_numbers_only_for_the_operator(served):
    served.openai.completions.create(model=served.base, prompt="count")
    assert httpx.get(f"{served.running.url}/healthz").status_code == 200
    assert httpx.get(f"{served.running.url}/readyz").status_code == 200
    assert httpx.get(f"{served.running.url}/metrics").status_code == 401
    assert served.http.get("/metrics").status_code == 403
    operator = served.running.http(served.world.add_account("hearth", role="admin"))
    numbers = operator.get("/metrics").text
    assert 'endpoint="/inference/v1/completions",status="200"} 1.0' in numbers
    assert 'deployment="accounts/acme/deployments/main"} 0.0' in numbers
    assert "hearth_gateway_first_byte_seconds_count" in numbers


def test_a_revoked_key_stops_working(served):
    assert served.http.get("/v1/models").status_code == 200
    with served.world.db.session() as session:
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.account_id == "acme"))
    wait_until(lambda: served.http.get("/v1/models").status_code == 401)
