"""Which replicas are asked, and what happens when they cannot answer."""

import socket
import threading
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from sqlalchemy import select

from controlplane.resources.tables import ReplicaRow
from gateway.app import create_app
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.serving import serving, wait_until

QUESTION = [{"role": "user", "content": "count"}]


@pytest.fixture
def dying_url():
    """A server that takes a request and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            try:
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(65536)
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def pair(world, serve, start_gateway):
    """A base on two replicas: the key, the running gateway and the two engines."""
    engines = [FakeEngine("base-uid"), FakeEngine("base-uid")]
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base)
    for engine in engines:
        engine.url = serve(engine)
        world.add_replica(deployment, engine.url, "base-uid")
    world.load("acme", "llama-1", base, deployment)
    yield start_gateway(), engines
    for engine in engines:
        engine.may_start.set()


def ask_in_background(client: openai.OpenAI, **fields: str) -> threading.Thread:
    asked = {"model": "llama", "prompt": "count", **fields}
    thread = threading.Thread(target=lambda: client.completions.create(**asked))
    thread.start()
    return thread


def test_requests_go_to_the_replica_with_the_least_in_flight(pair, world):
    running, engines = pair
    client = running.openai(world.keys["acme"])
    for engine in engines:
        engine.may_start.clear()
    waiting = [ask_in_background(client) for _ in range(4)]
    assert wait_until(lambda: [engine.active for engine in engines] == [2, 2])
    engines[1].may_start.set()
    assert wait_until(lambda: engines[1].active == 0)
    client.completions.create(model="llama", prompt="count")
    client.completions.create(model="llama", prompt="count")
    assert [len(engine.requests) for engine in engines] == [2, 4]
    engines[0].may_start.set()
    for thread in waiting:
        thread.join()


LONG = "You are a patient teacher. " * 100
TOGETHER = [
    ({}, {"user": "ann"}, "hi"),
    ({}, {"user": "ben", "prompt_cache_key": "ann"}, "hi"),
    ({"x-session-affinity": "ann"}, {"user": "cleo"}, "hi"),
    ({}, {}, LONG),
]


@pytest.mark.parametrize(("headers", "fields", "prompt"), TOGETHER)
def test_requests_of_one_session_or_with_one_beginning_go_to_one_replica(
    pair, world, headers, fields, prompt
):
    running, engines = pair
    http = running.http(world.keys["acme"])
    for number in range(6):
        sent = {"model": "llama", "prompt": f"{prompt} {number}", **fields}
        assert http.post("/v1/completions", json=sent, headers=headers).status_code == 200
    assert sorted(len(engine.requests) for engine in engines) == [0, 6]


def test_sessions_are_shared_out_and_a_busy_replica_gives_its_sessions_away(pair, world):
    running, engines = pair
    client = running.openai(world.keys["acme"])
    for number in range(20):
        client.completions.create(model="llama", prompt="count", user=str(number))
    assert min(len(engine.requests) for engine in engines) >= 3
    for engine in engines:
        engine.requests.clear()
        engine.may_start.clear()
    waiting = [ask_in_background(client, user="ann") for _ in range(10)]
    assert wait_until(lambda: sorted(engine.active for engine in engines) == [3, 7])
    for engine in engines:
        engine.may_start.set()
    for thread in waiting:
        thread.join()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["500", "error-first"])
def test_a_replica_that_fails_before_its_first_byte_is_replaced_by_another(pair, world, stream, fault):
    running, engines = pair
    engines[0].fault = fault if fault == "500" or stream else "500"
    engines[0].code = 500
    client = running.openai(world.keys["acme"])
    for _ in range(4):
        assert client.completions.create(model="llama", prompt="count", stream=stream)
    assert len(engines[1].requests) == 4
    assert len(engines[0].requests) <= 1, "it is passed over for a while"


def test_what_all_replicas_fail_at_is_told_once_each_has_tried(pair, world):
    running, engines = pair
    for engine in engines:
        engine.fault = "500"
    sent = {"model": "llama", "prompt": "count"}
    answer = running.http(world.keys["acme"]).post("/v1/completions", json=sent)
    assert answer.status_code == 502
    assert [len(engine.requests) for engine in engines] == [1, 1]
    assert not running.gateway.balancer.in_flight


def test_a_replica_that_drains_gets_nothing_new_and_finishes_what_it_has(pair, world, db):
    running, engines = pair
    for engine in engines:
        engine.may_start.clear()
    answers: list[int] = []
    http = running.http(world.keys["acme"])
    sent = {"model": "llama", "prompt": "count"}
    waiting = [
        threading.Thread(target=lambda: answers.append(http.post("/v1/completions", json=sent).status_code))
        for _ in range(4)
    ]
    for thread in waiting:
        thread.start()
    assert wait_until(lambda: [engine.active for engine in engines] == [2, 2])
    with db.session() as session:
        draining = session.scalars(select(ReplicaRow).order_by(ReplicaRow.uid)).all()
        leaving = next(row for row in draining if row.port == urlsplit(engines[0].url).port)
        leaving.state = "STOPPING"
    running.until_routed(lambda g: len(g.snapshot.by_model["acme", "llama"][0].targets) == 1)
    for engine in engines:
        engine.may_start.set()
    for thread in waiting:
        thread.join()
    assert [http.post("/v1/completions", json=sent).status_code for _ in range(3)] == [200] * 3
    assert answers == [200] * 4
    assert [len(engine.requests) for engine in engines] == [2, 5]


def test_a_replica_that_cannot_be_reached_is_replaced_by_another(served, closed_url):
    world = served.world
    (route,) = served.running.gateway.snapshot.by_model["acme", "llama"]
    world.add_replica(route.deployment.uid, closed_url, "base-uid")
    served.running.until_routed(lambda g: len(g.snapshot.by_model["acme", "llama"][0].targets) == 2)
    for _ in range(4):
        assert served.openai.completions.create(model=served.base, prompt="count").choices
    assert len(served.engine.requests) == 4


@pytest.mark.parametrize("stream", [True, False])
def test_a_replica_that_dies_before_its_answer_is_replaced_by_another(served, dying_url, stream):
    (route,) = served.running.gateway.snapshot.by_model["acme", "llama"]
    served.world.add_replica(route.deployment.uid, dying_url, "base-uid")
    served.running.until_routed(lambda g: len(g.snapshot.by_model["acme", "llama"][0].targets) == 2)
    for _ in range(4):
        assert served.openai.completions.create(model="llama", prompt="count", stream=stream)
    assert len(served.engine.requests) == 4


def test_when_no_replica_can_be_reached_the_caller_may_try_again(world, start_gateway, closed_url):
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base)
    world.add_replica(deployment, closed_url, "base-uid")
    world.load("acme", "llama-1", base, deployment)
    running = start_gateway()
    answer = running.http(world.keys["acme"]).post(
        "/v1/completions", json={"model": "llama", "prompt": "count"}
    )
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "127.0.0.1" not in answer.text
    assert not running.gateway.balancer.in_flight


def test_a_deployment_without_a_ready_replica_is_scaling_up(world, engine_url, start_gateway):
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base, status_message="pulling weights")
    world.add_replica(deployment, engine_url, "base-uid", state="LOADING")
    world.load("acme", "llama-1", base, deployment, state="DEPLOYING")
    with pytest.raises(openai.InternalServerError) as refused:
        start_gateway().openai(world.keys["acme"]).completions.create(model="llama", prompt="count")
    assert refused.value.status_code == 503
    assert refused.value.code == "DEPLOYMENT_SCALING_UP"
    assert refused.value.response.headers["retry-after"] == "5"
    assert "pulling weights" in str(refused.value)


def test_a_failed_deployment_says_why_to_its_owner_alone(world, start_gateway):
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base, state="FAILED", status_message="out of memory")
    world.load("acme", "llama-1", base, deployment, public=True)
    running = start_gateway()
    said = {}
    for account in ("acme", "rival"):
        answer = running.http(world.keys[account]).post(
            "/v1/completions", json={"model": "accounts/acme/models/llama", "prompt": "count"}
        )
        assert answer.status_code == 503
        said[account] = answer.json()["error"]["message"]
    assert said["acme"] == (
        "deployment accounts/acme/deployments/main has failed and "
        "has no ready replica for the model: out of memory"
    )
    assert said["rival"] == "the model's deployment has failed and has no ready replica for the model"


def test_an_addon_is_served_only_where_it_is_proven(served, serve):
    """A second replica has loaded nothing yet: it takes the base's requests and none of the addon's."""
    second = FakeEngine("base-uid")
    (route,) = served.running.gateway.snapshot.by_model["acme", "llama"]
    served.world.add_replica(route.deployment.uid, serve(second), "base-uid")
    served.running.until_routed(lambda g: len(g.snapshot.by_model["acme", "llama"][0].targets) == 2)
    for _ in range(4):
        served.openai.completions.create(model="tuned", prompt="count")
    assert second.requests == []
    for _ in range(2):
        served.openai.completions.create(model="llama", prompt="count")
    assert len(second.requests) == 1


def test_an_addon_that_cannot_be_loaded_says_why(served):
    world = served.world
    (route,) = served.running.gateway.snapshot.by_model["acme", "llama"]
    base = world.add_base("acme", "unused")
    world.load(
        "acme",
        "broken-1",
        world.add_addon("acme", "broken", base),
        route.deployment.uid,
        state="DEPLOYING",
        status=("FAILED_PRECONDITION", "the adapter's rank is 128"),
    )
    served.running.until_routed(lambda gateway: ("acme", "broken") in gateway.snapshot.by_model)
    answer = served.http.post("/v1/completions", json={"model": "broken", "prompt": "count"})
    assert answer.status_code == 412
    assert answer.json()["error"]["message"] == "the model could not be loaded: the adapter's rank is 128"


def test_an_engines_own_failure_shows_nothing_internal(served):
    served.engine.fault = "500"
    answer = served.http.post("/v1/completions", json={"model": served.base, "prompt": "count"})
    assert answer.status_code == 502
    assert "worker.py" not in answer.text
    assert answer.json()["error"]["type"] == "server_error"


def test_an_engines_refusal_is_passed_on_under_the_models_name(served):
    served.engine.fault = "400"
    answer = served.http.post("/v1/completions", json={"model": served.base, "prompt": "count"})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": f"{served.base}: top_p is bad",
        "type": "invalid_request_error",
        "param": "top_p",
        "code": "INVALID_ARGUMENT",
    }


def test_an_engines_refusal_names_none_of_its_own_options(served):
    served.engine.fault = "400"
    served.engine.complaint = '"auto" tool choice requires --enable-auto-tool-choice to be set'
    answer = served.http.post("/v1/completions", json={"model": served.base, "prompt": "count"})
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message == "the model's engine is not set up to serve such a request"


def test_a_silent_engine_is_given_up(served, start_gateway, limits):
    served.engine.may_start.clear()
    running = start_gateway(limits(silence_seconds=0.2))
    for stream in (False, True):
        asked = {"model": served.base, "prompt": "count", "stream": stream}
        answer = running.http(served.key).post("/v1/completions", json=asked)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "GATEWAY_TIMEOUT"


@pytest.mark.parametrize(
    ("bound", "status", "code"),
    [("in_flight_per_account", 429, "RESOURCE_EXHAUSTED"), ("in_flight", 503, "OVERLOADED")],
)
def test_more_requests_than_the_gateway_holds_are_turned_away(
    served, start_gateway, limits, bound, status, code
):
    served.engine.may_start.clear()
    running = start_gateway(limits(**{bound: 1}))
    waiting = ask_in_background(running.openai(served.key))
    assert wait_until(lambda: served.engine.active == 1)
    asked = {"model": served.base, "prompt": "count"}
    answer = running.http(served.key).post("/v1/completions", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["retry-after"]
    served.engine.may_start.set()
    waiting.join()
    assert running.http(served.key).post("/v1/completions", json=asked).status_code == 200


def test_larger_requests_than_the_gateway_holds_of_an_account_are_turned_away(served, start_gateway, limits):
    served.engine.may_start.clear()
    running = start_gateway(limits(held_bytes=4_000))
    asked = {"model": served.base, "prompt": "w" * 900}
    http = running.http(served.key)
    asking = [threading.Thread(target=lambda: http.post("/v1/completions", json=asked)) for _ in range(2)]
    for one in asking:
        one.start()
    assert wait_until(lambda: served.engine.active == 2)
    answer = http.post("/v1/completions", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "RESOURCE_EXHAUSTED")
    assert http.get("/v1/models").status_code == 200
    served.engine.may_start.set()
    for one in asking:
        one.join()
    assert wait_until(lambda: running.gateway.admission.bytes == 0)
    assert http.post("/v1/completions", json=asked).status_code == 200


def test_before_the_first_routes_are_loaded_the_gateway_is_not_ready(settings):
    nowhere = settings.model_copy(update={"database_url": "postgresql+psycopg://x@127.0.0.1:1/x"})
    with serving(create_app(nowhere), lifespan="on") as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503
        answer = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer fw_x"})
        assert answer.status_code == 503
