"""The gateway and Postgres: usage is written, and a Postgres that goes away stops nothing."""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers

from controlplane.db import AsyncDatabase
from controlplane.prices import Prices
from controlplane.resources.quotas.catalog import allow
from controlplane.resources.tables import ApiKeyRow, LedgerRow, ReplicaRow, ResponseRow, SpendRow
from gateway.keys import KeyCache
from gateway.metering import Meter, time_ordered_uid
from tests.gateway.serving import Wire, wait_until


@pytest.fixture
def wire(settings):
    """The way to Postgres that the gateway under test takes."""
    url = make_url(settings.database_url)
    wire = Wire(url.host or "127.0.0.1", url.port or 5432)
    yield wire
    wire.close()


@pytest.fixture
def behind_wire(served, start_gateway, settings, wire, limits):
    url = make_url(settings.database_url).set(host="127.0.0.1", port=wire.port)
    return start_gateway(limits(database_seconds=0.5), database_url=url.render_as_string(hide_password=False))


def usage_rows(db) -> list[LedgerRow]:
    with db.session() as session:
        return list(session.scalars(select(LedgerRow).order_by(LedgerRow.create_time)))


def test_an_answered_request_leaves_a_row_of_usage_and_marks_its_key(served, db):
    served.openai.completions.create(model=served.addon, prompt="count")
    list(served.openai.completions.create(model=served.base, prompt="count", stream=True))
    whole, streamed = wait_until(lambda: rows if len(rows := usage_rows(db)) == 2 else None)
    assert whole.account_id == "acme"
    assert whole.user_id == "someone"
    assert (whole.model, whole.deployment) == (served.addon, "accounts/acme/deployments/main")
    assert (whole.endpoint, whole.http_status, whole.streamed) == ("completions", 200, False)
    for row in (whole, streamed):
        assert (row.prompt_tokens, row.cached_prompt_tokens, row.completion_tokens) == (7, 4, 3)
    assert streamed.streamed
    with db.session() as session:
        key = session.scalar(select(ApiKeyRow).where(ApiKeyRow.account_id == "acme"))
        assert key.key_id == whole.key_id
        used = select(ApiKeyRow.last_used).where(ApiKeyRow.account_id == "acme")
        assert wait_until(lambda: session.scalar(used)) is not None


def test_a_database_that_goes_away_stops_no_known_caller(served, behind_wire, wire, db):
    client = behind_wire.openai(served.key)
    client.completions.create(model=served.base, prompt="count")
    assert wait_until(lambda: len(usage_rows(db)) == 1)
    wire.cut()
    for _ in range(3):
        assert client.completions.create(model=served.base, prompt="count").choices
    assert behind_wire.http("fw_never_seen").get("/v1/models").status_code == 503
    assert len(usage_rows(db)) == 1
    wire.mend()
    assert wait_until(lambda: len(usage_rows(db)) == 4)
    assert behind_wire.http("fw_never_seen").get("/v1/models").status_code == 401
    assert behind_wire.gateway.is_ready


def test_responses_are_answered_without_a_database_and_stored_when_it_is_back(served, behind_wire, wire, db):
    client = behind_wire.openai(served.key)
    assert client.responses.create(model=served.base, input="count").output_text
    wire.cut()
    made = client.responses.create(model=served.base, input="count")
    assert client.responses.retrieve(made.id).id == made.id
    again = client.responses.create(model=served.base, input="again", previous_response_id=made.id)
    for path in (f"/v1/responses/resp_{0:032x}", "/v1/responses"):
        answer = behind_wire.http(served.key).get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "UNAVAILABLE")
    wire.mend()

    def stored():
        with db.session() as session:
            return {again.id, made.id} <= set(session.scalars(select(ResponseRow.id)))

    assert wait_until(stored)
    assert behind_wire.gateway.is_ready


def test_a_database_that_hangs_stops_no_known_caller(served, behind_wire, wire, db):
    """Connections stay open and nothing comes back: the worst way for a database to be away."""
    client = behind_wire.openai(served.key)
    client.completions.create(model=served.base, prompt="count")
    wire.freeze()
    for _ in range(3):
        assert client.completions.create(model=served.base, prompt="count").choices
    assert behind_wire.http("fw_never_seen").get("/v1/models").status_code == 503
    wire.mend()
    assert wait_until(lambda: len(usage_rows(db)) == 4)
    assert wait_until(lambda: behind_wire.http("fw_never_seen").get("/v1/models").status_code == 401)


def test_a_gateway_that_is_left_alone_serves_counts_limits_and_writes_its_usage_once(
    world, engine, engine_url, start_gateway, settings, wire, limits, db
):
    """Without Postgres, Valkey and the API: what it has seen is all that it needs."""
    base = world.add_base("fireworks", "llama", public=True)
    deployment = world.add_deployment("fireworks", "shared", base)
    world.add_replica(deployment, engine_url, "base-uid")
    world.load("fireworks", "llama-1", base, deployment)
    url = make_url(settings.database_url).set(host="127.0.0.1", port=wire.port)
    running = start_gateway(
        limits(database_seconds=0.5),
        database_url=url.render_as_string(hide_password=False),
        redis_url="redis://127.0.0.1:1/0",
        api_url="http://127.0.0.1:1",
        quotas={"serverless-inference-rpm": allow(6), "serverless-inference-generated-tpm": allow(10)},
    )
    http, sent = running.http(world.keys["acme"]), {"model": "fireworks/llama", "prompt": "count"}
    assert http.post("/v1/completions", json=sent).status_code == 200
    assert wait_until(lambda: len(usage_rows(db)) == 1)
    wire.cut()
    statuses = [http.post("/v1/completions", json=sent).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429], "12 tokens have come by then"
    asked = running.http(world.keys["rival"]).post("/v1/completions", json=sent)
    assert asked.status_code == 503, "a key that was never seen cannot be looked up"
    assert http.get("/v1/accounts/acme/models").status_code == 503
    wire.mend()
    assert wait_until(lambda: len(usage_rows(db)) == 4)
    rival = running.http(world.keys["rival"])
    assert wait_until(lambda: rival.post("/v1/completions", json=sent).status_code == 200)
    rows = wait_until(lambda: found if len(found := usage_rows(db)) == 5 else None)
    assert sum(row.completion_tokens for row in rows) == 15
    assert len(engine.requests) == 5


def test_a_key_expires_while_the_database_is_away(served, behind_wire, wire, db):
    http = behind_wire.http(served.key)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    with db.session() as session:
        session.execute(update(ApiKeyRow).values(expire_time=soon))
    assert http.get("/v1/models").status_code == 200
    wire.cut()
    assert wait_until(lambda: http.get("/v1/models").status_code == 401)


def test_routes_follow_the_replicas(served, db):
    with db.session() as session:
        session.execute(update(ReplicaRow).values(state="STOPPING"))
    asked = {"model": served.base, "prompt": "count"}
    wait_until(lambda: served.http.post("/v1/completions", json=asked).status_code == 503)


async def test_callers_that_come_at_once_with_a_new_key_share_one_lookup(world, settings, limits):
    database = AsyncDatabase(settings.database_url, pool_size=1)
    statements = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *call: statements.append(call))
    keys = KeyCache(database, limits())
    headers = Headers({"authorization": f"Bearer {world.keys['acme']}"})
    leaving, *staying = [asyncio.create_task(keys.authenticate(headers)) for _ in range(100)]
    await asyncio.sleep(0)
    leaving.cancel()
    found = await asyncio.gather(*staying)
    assert {key.account_id for key in found} == {"acme"}
    assert len(statements) == 1
    await database.close()


def a_row(model: str = "accounts/acme/models/llama") -> dict[str, object]:
    return {
        "account_id": "acme",
        "owner_id": "acme",
        "user_id": "someone",
        "key_id": "k",
        "model": model,
        "deployment": "accounts/acme/deployments/main",
        "endpoint": "completions",
        "http_status": 200,
    }


@pytest.fixture
async def meter(settings, limits):
    database = AsyncDatabase(settings.database_url, pool_size=1)
    prices = Prices.model_validate({"tokens": {"default": {"prompt": "1000"}}})
    yield Meter(database, limits(usage_rows=3, usage_batch=2), prices=prices)
    await database.close()


async def test_the_meter_keeps_so_many_rows_and_counts_the_rest(meter, db):
    for _ in range(5):
        meter.record(a_row())
    assert (len(meter), meter.dropped) == (3, 2)
    await meter.flush()
    assert (len(meter), len(usage_rows(db))) == (0, 3)


async def test_a_row_that_postgres_never_takes_does_not_hold_up_the_others(meter, db):
    meter.record({**a_row(), "prompt_tokens": 2**40})  # more than the column holds
    meter.record(a_row())
    meter.record(a_row())
    await meter.flush()
    assert (len(meter), meter.dropped, len(usage_rows(db))) == (0, 1, 2)


async def test_the_meter_writes_what_is_left_when_it_closes(meter, db):
    meter.record(a_row())
    meter.note_use(uuid.uuid4())
    await meter.close()
    with db.session() as session:
        assert session.scalar(select(func.count()).select_from(LedgerRow)) == 1


async def test_a_batch_whose_commit_is_not_heard_of_is_sent_again_and_counts_once(meter, db, monkeypatch):
    """The connection breaks after the commit: the meter does not know that its entries are there."""
    write = meter._write

    async def unheard(statement, batch):
        await write(statement, batch)
        monkeypatch.setattr(meter, "_write", write)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(meter, "_write", unheard)
    for _ in range(2):
        meter.record({**a_row(), "owner_id": "fireworks", "prompt_tokens": 5})
    with pytest.raises(OperationalError):
        await meter.flush()
    assert len(meter) == 2
    await meter.flush()
    assert (len(meter), len(usage_rows(db))) == (0, 2)
    with db.session() as session:
        assert session.scalars(select(SpendRow.cost_nanos)).all() == [10_000_000]


def test_uids_begin_with_their_time():
    moments = [datetime(2026, 3, 1, 12, 0, second, tzinfo=UTC) for second in range(5)]
    uids = [time_ordered_uid(moment.timestamp()) for moment in moments]
    assert uids == sorted(uids)
    assert {(uid.version, uid.variant) for uid in uids} == {(7, uuid.RFC_4122)}
    assert len({time_ordered_uid(moments[0].timestamp()) for _ in range(1000)}) == 1000


def test_a_model_that_was_deployed_a_moment_ago_answers_though_the_known_routes_are_older(
    served, world, start_gateway, limits
):
    running = start_gateway(limits(snapshot_seconds=3600.0))
    http = running.http(served.key)
    assert http.get("/v1/models/acme/late").status_code == 404
    base = world.add_base("acme", "late")
    world.load("acme", "late-1", base, world.add_deployment("acme", "later", base))
    assert http.get("/v1/models/acme/late").json()["id"] == "accounts/acme/models/late"


def test_wrong_names_asked_for_together_cost_one_look(served, start_gateway, limits):
    running = start_gateway(limits(snapshot_seconds=3600.0, look_again_pause=0.5))
    reads = []
    read = running.gateway.load_snapshot

    async def load_snapshot():
        reads.append(1)
        await read()

    running.gateway.load_snapshot = load_snapshot
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda name: running.http(served.key).get(f"/v1/models/{name}"), "abcdefgh")
        assert {answer.status_code for answer in answers} == {404}
    assert len(reads) <= 2


def test_a_wrong_name_is_told_though_the_database_hangs(served, start_gateway, settings, wire, limits):
    url = make_url(settings.database_url).set(host="127.0.0.1", port=wire.port)
    running = start_gateway(
        limits(database_seconds=30.0, look_again_seconds=0.2),
        database_url=url.render_as_string(hide_password=False),
    )
    http = running.http(served.key)
    assert http.get("/v1/models").status_code == 200
    wire.freeze()
    assert http.get("/v1/models/acme/nothing").status_code == 404
    wire.mend()
