"""`/healthz` and `/readyz` mean what they say."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import SimpleNamespace

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from controlplane.observability.health import (
    NO_SCHEMA,
    OLD_SCHEMA,
    STUCK_LOOP,
    Pulse,
    known_revisions,
    on_loop,
)
from controlplane.observability.port import PortTaken, WatchPort
from gateway.app import create_app, say_when_stopping
from tests.gateway.serving import Wire, serving, wait_until
from tests.observability.conftest import Watched, free_port
from workers.observability.health import FRESH_SECONDS, STUCK_SECONDS, Turning, WorkerHealth


def set_revision(database_url: str, revision: str | None) -> None:
    address = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DELETE FROM alembic_version")
        if revision is not None:
            connection.execute("INSERT INTO alembic_version VALUES (%s)", [revision])


SCHEMAS = [
    ("0001", 503, [OLD_SCHEMA.format(found="0001", needed=max(known_revisions()))]),
    (None, 503, [NO_SCHEMA]),
    ("9999", 200, []),  # the next version's
    (max(known_revisions()), 200, []),
]


def test_an_api_is_ready_for_a_schema_that_is_not_older_than_itself(api, settings):
    url, watched = api
    for revision, status, missing in SCHEMAS:
        set_revision(settings.database_url, revision)
        for answer in (httpx.get(f"{url}/readyz"), watched.get("/readyz")):
            assert (answer.status_code, answer.json().get("missing", [])) == (status, missing)
        assert watched.get("/healthz").status_code == 200
    # Its own port, which users may reach, shows no numbers at all.
    assert httpx.get(f"{url}/metrics").status_code == 404


def test_a_gateway_that_has_had_its_routes_stays_ready_without_postgres_and_tells_their_age(settings):
    database, port = make_url(settings.database_url), free_port()
    wire = Wire(database.host or "", database.port or 0)
    url = database.set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False)
    app = create_app(settings.model_copy(update={"database_url": url, "metrics_port": port}))
    watched = Watched(port)
    with serving(app, lifespan="on") as public:
        wait_until(watched.is_ready)
        wire.cut()
        wait_until(lambda: watched.samples("hearth_gateway_routes_age_seconds")[()] > 2)
        assert httpx.get(f"{public}/readyz").status_code == 200
        app.gateway.is_draining = True
        answer = watched.get("/readyz")
        assert (answer.status_code, answer.json()["missing"]) == (503, ["it is stopping"])
        assert watched.get("/healthz").status_code == 200
    wire.close()


def test_a_gateway_whose_work_beside_the_requests_has_ended_is_not_healthy(gateway):
    url, watched, inside = gateway
    assert httpx.get(f"{url}/healthz").status_code == 200

    async def ends() -> None:
        raise ZeroDivisionError

    inside.timers.loop.call_soon_threadsafe(inside.background.repeat, "loading routes", 1, ends)
    wait_until(lambda: not watched.is_ready())
    for answer in (httpx.get(f"{url}/healthz"), watched.get("/healthz"), watched.get("/readyz")):
        assert (answer.status_code, answer.json()["missing"]) == (503, ["loading routes has ended"])


def test_a_stuck_event_loop_is_told_by_another_thread():
    loop, held = asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def nothing_missing() -> list[str]:
        return []

    ask = on_loop(loop, nothing_missing, seconds=0.2)
    assert ask() == []
    loop.call_soon_threadsafe(held.wait)
    assert ask() == [STUCK_LOOP]
    held.set()
    assert on_loop(loop, nothing_missing, seconds=5)() == []
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_loop_that_waits_for_the_broker_is_alive_and_one_that_does_not_is_stuck():
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    pulse.beat()
    now[0] = STUCK_SECONDS + 1
    assert Turning("the loop", pulse, answers=lambda: False).missing_for_life() == []
    assert Turning("the loop", pulse, answers=lambda: True).missing_for_life() == [
        f"the loop has not turned for {STUCK_SECONDS + 1:.0f} s"
    ]
    pulse.beat()
    assert Turning("the loop", pulse, answers=lambda: True).missing_for_life() == []


def test_a_worker_that_has_not_begun_or_takes_no_tasks_is_not_ready(database):
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    worker = WorkerHealth(pulse, lambda: True, database)
    assert worker.missing_for_work() == ["no tasks are being taken"]
    pulse.beat()
    assert worker.missing_for_work() == []
    now[0] = FRESH_SECONDS + 1
    assert worker.missing_for_work() == ["no tasks are being taken"]


def test_a_port_that_is_taken_is_named():
    first = WatchPort("127.0.0.1", free_port(), {})
    with pytest.raises(PortTaken, match=f"^HEARTH_METRICS_PORT: port {first.port} of 127.0.0.1: "):
        WatchPort("127.0.0.1", first.port, {})
    first.close()


def test_the_gateways_public_port_shows_no_numbers_without_an_operators_key(gateway):
    url, watched, _ = gateway
    assert httpx.get(f"{url}/metrics").status_code == 401
    assert watched.get("/metrics").status_code == 200


def test_a_gateway_that_is_told_to_stop_says_so_at_once():
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        stopping = SimpleNamespace(is_draining=False)
        say_when_stopping(stopping)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopping.is_draining
    assert heard == [signal.SIGTERM]  # the server's own
