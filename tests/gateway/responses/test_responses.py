"""Responses as OpenAI's own package asks for them, answered by an engine that the tests steer."""

import json
from datetime import timedelta

import openai
import pytest
from sqlalchemy import update

from controlplane.db import now
from controlplane.resources.quotas.catalog import allow
from controlplane.resources.tables import ResponseRow
from gateway.responses.store import ResponseStore
from tests.gateway.serving import wait_until


def ask(served, client=None, **asked):
    return (client or served.openai).responses.create(**{"model": served.base, "input": "count", **asked})


def test_a_response_is_answered_by_a_chat(served):
    answer = ask(served, instructions="Be brief.", max_output_tokens=50, metadata={"a": "b"})
    assert answer.output_text == "one two three"
    assert (answer.status, answer.model, answer.object) == ("completed", served.base, "response")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert answer.usage.input_tokens_details.cached_tokens == 4
    assert (answer.instructions, answer.max_output_tokens, answer.metadata) == ("Be brief.", 50, {"a": "b"})
    [body] = served.engine.bodies
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "count"},
    ]
    assert body["max_tokens"] == 50


@pytest.mark.parametrize("prefix", ["/v1", "/inference/v1"])
async def test_the_async_client_streams_numbered_events_in_their_order(served, prefix):
    url = served.running.url + prefix
    async with openai.AsyncOpenAI(base_url=url, api_key=served.key) as client:
        stream = await ask(served, client, stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "one two three"
    assert events[-1].response.usage.output_tokens == 3
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1


def test_an_answer_that_is_cut_off_is_incomplete(served):
    served.engine.finish = "length"
    answer = ask(served)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[-1].status == "incomplete"
    events = list(ask(served, stream=True))
    assert events[-1].type == "response.incomplete"
    assert [each.item.status for each in events if each.type == "response.output_item.done"] == ["incomplete"]


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_is_an_item_and_its_result_goes_on(served, stream):
    served.engine.tokens = ['{"name": "get_weather", ', '"arguments": {"city"', ': "Oslo"}}']
    asked = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    if stream:
        with served.openai.responses.stream(model=served.base, input="count", **asked) as events:
            answer = events.get_final_response()
    else:
        answer = ask(served, **asked)
    [call] = answer.output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "get_weather",
        {"city": "Oslo"},
    )
    served.engine.tokens = ["rain"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    assert ask(served, previous_response_id=answer.id, input=[result]).output_text == "rain"
    told = json.dumps(served.engine.bodies[-1]["messages"])
    assert "count" in told
    assert "Oslo" in told
    assert "get_weather returned: rain" in told


def test_a_conversation_goes_on_from_a_stored_response_and_from_what_came_before(served):
    first = ask(served, instructions="Only for the first.")
    second = ask(served, input="again", previous_response_id=first.id)
    third = ask(served, input="and again", previous_response_id=second.id)
    assert [message["content"] for message in served.engine.bodies[-1]["messages"]] == [
        "count",
        "one two three",
        "again",
        "one two three",
        "and again",
    ]
    assert third.previous_response_id == second.id


def test_a_conversation_goes_on_at_another_gateway(served, start_gateway):
    first = ask(served)
    other = start_gateway()
    other.until_routed(lambda gateway: gateway.snapshot.by_model)
    client = other.openai(served.key)
    second = ask(served, client, input="again", previous_response_id=first.id)
    ask(served, input="and again", previous_response_id=second.id)
    assert len(served.engine.bodies[-1]["messages"]) == 5


def test_stored_responses_are_got_listed_and_deleted(served):
    made = [ask(served, input=text).id for text in ("a", "b", "c")]
    assert served.openai.responses.retrieve(made[0]).output_text == "one two three"
    listed = served.http.get("/v1/responses", params={"limit": 2}).json()
    assert [each["id"] for each in listed["data"]] == made[:0:-1]
    assert (listed["has_more"], listed["last_id"]) == (True, made[1])
    rest = served.http.get("/inference/v1/responses", params={"after": made[1]}).json()
    assert [each["id"] for each in rest["data"]] == made[:1]
    assert not rest["has_more"]
    newer = served.http.get("/v1/responses", params={"before": made[0]}).json()
    assert [each["id"] for each in newer["data"]] == made[:0:-1]
    deleted = served.http.delete(f"/v1/responses/{made[0]}")
    assert deleted.json() == {"message": "Response deleted successfully"}
    with pytest.raises(openai.NotFoundError):
        served.openai.responses.retrieve(made[0])
    with pytest.raises(openai.NotFoundError):
        ask(served, previous_response_id=made[0])


def test_an_account_stores_no_more_than_its_quota(served, start_gateway):
    quotas = {"stored-responses": allow(2, 5), "stored-response-bytes": allow(10**9)}
    one, other = start_gateway(quotas=quotas), start_gateway(quotas=quotas)
    made = [ask(served, one.openai(served.key)).id for _ in range(2)]
    with pytest.raises(openai.RateLimitError) as refused:
        ask(served, one.openai(served.key))
    assert refused.value.type == "insufficient_quota"
    message = refused.value.body["message"]
    assert "quota stored-responses of accounts/acme is used up" in message
    assert "at most 2 stored responses, and 2 are" in message
    assert message.endswith("raise the quota up to 5; delete some, or send 'store': false")
    assert ask(served, one.openai(served.key), store=False).output_text == "one two three"
    assert one.http(served.key).get("/v1/responses").json()["data"][0]["id"] == made[1], "all is written"

    def is_refused_there():
        return other.http(served.key).post("/v1/responses", json={"model": served.base, "input": "count"})

    before = len(served.engine.bodies)
    wait_until(lambda: is_refused_there().status_code == 429)
    assert len(served.engine.bodies) - before <= 2, "it counts what others have stored, once it has looked"
    everything = one.http(served.key).get("/v1/responses").json()["data"]
    for each in everything:
        one.http(served.key).delete(f"/v1/responses/{each['id']}")
    assert ask(served, one.openai(served.key)).id, "what is deleted leaves room"


def test_the_bytes_that_an_account_stores_have_a_quota_too(served, start_gateway):
    running = start_gateway(quotas={"stored-response-bytes": allow(2000)})
    client = running.openai(served.key)
    first = ask(served, client, input="long " * 500).id
    with pytest.raises(openai.RateLimitError, match="at most 2,000 bytes of stored responses"):
        ask(served, client)
    running.http(served.key).delete(f"/v1/responses/{first}")
    assert ask(served, client).id


def test_what_is_stored_is_read_within_the_bounds_of_other_requests(served, start_gateway, limits):
    made = ask(served).id
    running = start_gateway(limits(in_flight_per_account=0))
    paths = (("GET", ""), ("GET", f"/{made}"), ("GET", f"/{made}/input_items"), ("DELETE", f"/{made}"))
    for method, path in paths:
        answer = running.http(served.key).request(method, f"/v1/responses{path}")
        assert answer.status_code == 429
        assert "requests in flight" in answer.json()["error"]["message"]
    assert not running.gateway.admission.held
    assert served.openai.responses.retrieve(made).id == made


def test_a_response_that_is_not_stored_has_no_id_and_is_not_listed(served):
    assert ask(served, store=False).id is None
    assert served.http.get("/v1/responses").json()["data"] == []


def test_the_items_that_were_asked_are_listed(served):
    answer = ask(served, input=[{"role": "user", "content": "a"}, {"role": "developer", "content": "b"}])
    items = list(served.openai.responses.input_items.list(answer.id, order="asc", limit=1))
    assert [(item.role, item.content[0].text) for item in items] == [("user", "a"), ("developer", "b")]
    assert [message["role"] for message in served.engine.bodies[0]["messages"]] == ["user", "system"]


def test_another_account_finds_nothing_of_it(served):
    made = ask(served).id
    rival = served.running.http(served.world.keys["rival"])
    assert rival.get("/v1/responses").json()["data"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        assert rival.request(method, f"/v1/responses/{made}{path}").status_code == 404
    assert rival.get("/v1/responses", params={"after": made}).status_code == 404
    assert served.openai.responses.retrieve(made).id == made


def test_nothing_waits_for_the_database_but_the_reading_of_what_is_stored(served, start_gateway, limits):
    running = start_gateway(limits(store_seconds=60.0, responses_bytes=1500))
    running.until_routed(lambda gateway: gateway.snapshot.by_model)
    client = running.openai(served.key)
    first = ask(served, client)
    assert len(running.gateway.responses) == 1
    assert client.responses.retrieve(first.id).id == first.id
    ask(served, client, previous_response_id=first.id)
    with pytest.raises(openai.InternalServerError, match="cannot be stored"):
        ask(served, client)
    assert ask(served, client, store=False).output_text == "one two three"


def test_what_came_before_counts_as_held_like_a_body(served, start_gateway, limits):
    running = start_gateway(limits(held_bytes=18_000))
    running.until_routed(lambda gateway: gateway.snapshot.by_model)
    client = running.openai(served.key)
    first = ask(served, client, input="x" * 6000)
    assert ask(served, client, input="y" * 4000).output_text
    with pytest.raises(openai.RateLimitError, match="too large together"):
        ask(served, client, input="y" * 4000, previous_response_id=first.id)
    assert running.gateway.admission.bytes == 0


def test_a_page_holds_no_more_than_a_conversation_may(served, start_gateway, limits):
    running = start_gateway(limits(response_chain_bytes=10_000))
    running.until_routed(lambda gateway: gateway.snapshot.by_model)
    client, http = running.openai(served.key), running.http(served.key)
    made = [ask(served, client, instructions="x" * size).id for size in (3000, 3000, 12_000)]
    page = http.get("/v1/responses").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (made[2:], True)
    page = http.get("/v1/responses", params={"after": made[2]}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (made[1::-1], False)
    page = http.get("/v1/responses", params={"before": made[0]}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([made[1]], True)


def test_large_responses_are_written_a_few_at_a_time(served, start_gateway, limits, monkeypatch):
    running = start_gateway(limits(store_seconds=60.0, responses_batch_bytes=12_000))
    running.until_routed(lambda gateway: gateway.snapshot.by_model)
    written = []
    write = ResponseStore._write

    async def noted(store, batch):
        written.append(len(batch))
        await write(store, batch)

    monkeypatch.setattr(ResponseStore, "_write", noted)
    client = running.openai(served.key)
    for size in (12_000, 3000, 3000, 3000):
        ask(served, client, input="x" * size)
    assert len(running.http(served.key).get("/v1/responses").json()["data"]) == 4
    assert written == [1, 2, 1]


def test_responses_are_forgotten_after_their_days(served, start_gateway, limits):
    made = ask(served).id
    assert served.http.get("/v1/responses").json()["data"]
    with served.world.db.session() as session:
        session.execute(update(ResponseRow).values(create_time=now() - timedelta(days=31)))
    start_gateway(limits(forget_seconds=0.05))
    wait_until(lambda: served.http.get(f"/v1/responses/{made}").status_code == 404)


@pytest.mark.parametrize("fault", ["die-midway", "error-midway"])
def test_a_stream_that_breaks_off_fails(served, fault):
    served.engine.fault = fault
    events = list(ask(served, stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert "stopped in the middle" in events[-1].response.error.message
    assert served.http.get("/v1/responses").json()["data"] == []


def test_a_typed_answer_is_parsed_by_the_clients_package(served):
    served.engine.tokens = ['{"a": ', "1}"]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"format": {"type": "json_schema", "name": "a", "schema": schema, "strict": True}}
    assert json.loads(ask(served, text=wanted).output_text) == {"a": 1}
    assert "grammar" in served.engine.bodies[0]["structured_outputs"]


WRONG = [
    ({"frobnicate": 1}, "frobnicate", "Extra inputs are not permitted, field: 'frobnicate', value: 1"),
    ({"input": []}, "input", "'input' must be a string or a list of at least one item"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "must be one of user, assistant"),
    ({"input": [{"type": []}]}, "input[0].type", "must be one of message"),
    ({"input": [{"type": "web_search_call"}]}, "input[0].type", "of a tool that does not run here"),
    ({"input": [{"type": "function_call", "call_id": "a", "name": "b", "arguments": "{"}]}, None, "the JSON"),
    (
        {"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": "http://a"}]}]},
        "input[0].content",
        "must be text in a message of the role assistant",
    ),
    (
        {"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}]},
        "input[0].summary",
        "is not supported",
    ),
    ({"background": True}, "background", "'background' is not supported"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search' is no tool of the caller's own"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "'tools[0].name' must be 1 to 64"),
    ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "it must be function"),
    ({"truncation": "auto"}, "truncation", "'truncation' is not supported: auto"),
    ({"text": {"format": {"type": "xml"}}}, "text.format", "must be text, json_object or json_schema"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "metadata", "16 texts at most"),
    ({"max_output_tokens": 0}, "max_output_tokens", "'max_output_tokens' must be an integer of at least 1"),
    ({"include": ["x"]}, "include", "'include' is not supported"),
]


@pytest.mark.parametrize(("wrong", "param", "message"), WRONG)
def test_what_is_wrong_is_refused_in_the_callers_own_words(served, wrong, param, message):
    answer = served.http.post("/v1/responses", json={"model": served.base, "input": "count", **wrong})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert param is None or answer.json()["error"]["param"] == param
    assert served.engine.requests == []


def test_other_methods_are_refused_and_nothing_can_be_cancelled(served):
    made = ask(served).id
    assert served.http.put("/v1/responses").headers["allow"] == "GET, POST"
    assert served.http.put(f"/v1/responses/{made}").headers["allow"] == "GET, DELETE"
    assert served.http.post(f"/v1/responses/{made}/cancel").status_code == 400
    for limit in ("0", "101", "000000001999", "1" + "0" * 5000):
        assert served.http.get("/v1/responses", params={"limit": limit}).status_code == 400


def test_an_id_that_no_response_can_have_is_not_found(served):
    assert served.http.get("/v1/responses/a%00b").status_code == 404
    assert served.http.delete("/v1/responses/a%00b").status_code == 404
    assert served.http.get("/v1/responses", params={"after": "\0"}).status_code == 404
    asked = {"model": served.base, "input": "x", "previous_response_id": "\0"}
    assert served.http.post("/v1/responses", json=asked).status_code == 404
