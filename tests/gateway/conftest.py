"""The gateway under test: the real app on uvicorn, a real database, and engines that the tests steer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest
from sqlalchemy.engine import make_url

from controlplane.checks.tool_calls import call_form
from controlplane.config import Settings
from controlplane.db import Base, Database, import_tables
from gateway.app import create_app
from gateway.gateway import Gateway
from gateway.limits import Limits
from tests.gateway.engines import engine_running
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.serving import serving, wait_until
from tests.gateway.world import World

MODEL = Path(__file__).resolve().parents[2] / "quickstart" / "model"
# The model was taught tools without being shown them, in the form of Llama's.
TAUGHT = (
    json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    + '{# <|python_tag|> {"name": …, "parameters": …} #}'
)

QUICK = Limits(
    snapshot_seconds=0.05,
    flush_seconds=0.05,
    key_fresh_seconds=0.1,
    unknown_key_seconds=0.1,
    database_seconds=20.0,
    connect_seconds=1.0,
    avoid_seconds=60.0,
    wait_seconds=0.0,
)


@pytest.fixture(scope="session")
def gateway_database(platform_services: Any, template_database: str) -> str:
    """One database for these tests: copying one for each would be most of their time."""
    server = make_url(platform_services.postgres.url)
    with psycopg.connect(platform_services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE gateway TEMPLATE {template_database}")
    return server.set(drivername="postgresql+psycopg", database="gateway").render_as_string(False)


@pytest.fixture
def database_url(gateway_database: str) -> str:
    """The gateway tests' database, emptied."""
    import_tables()
    database = Database(gateway_database, pool_size=1)
    with database.session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    database.close()
    return gateway_database


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, pool_size=2)
    yield database
    database.close()


@pytest.fixture
def world(db: Database) -> World:
    """Two accounts, `acme` and `rival`."""
    made = World(db)
    made.add_account("acme")
    made.add_account("rival")
    made.add_account("fireworks")
    return made


class Slot:
    """A server that stays up between tests, whose engine each test brings."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def free_slots() -> Iterator[Callable[[], tuple[Slot, str]]]:
    with ExitStack() as servers:
        free: list[tuple[Slot, str]] = []

        def take() -> tuple[Slot, str]:
            if not free:
                slot = Slot()
                free.append((slot, servers.enter_context(serving(slot))))
            return free.pop()

        take.give_back = free.append  # type: ignore[attr-defined]
        yield take


@pytest.fixture
def serve(free_slots: Any) -> Iterator[Callable[[Any], str]]:
    """Serves an ASGI app until the end of the test, and returns its base URL."""
    taken = []

    def start(app: Any) -> str:
        slot, url = free_slots()
        slot.app = app
        taken.append((slot, url))
        return url

    yield start
    for slot in taken:
        free_slots.give_back(slot)


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that serves a base as `base-uid` and an addon as `addon-uid`."""
    return FakeEngine("base-uid", "addon-uid")


@pytest.fixture
def engine_url(engine: FakeEngine, serve: Callable[[Any], str]) -> Iterator[str]:
    yield serve(engine)
    engine.may_start.set()


@dataclass
class Running:
    """A gateway that runs, and what is inside it."""

    url: str
    gateway: Gateway

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def openai(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/inference/v1", api_key=key, max_retries=0, timeout=30)

    def until_routed(self, condition: Callable[[Gateway], object]) -> None:
        wait_until(lambda: self.gateway.snapshot is not None and condition(self.gateway))


@pytest.fixture
def closed_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def start_gateway(settings: Settings) -> Iterator[Callable[..., Running]]:
    """Starts gateways; `limits` and settings may be given."""
    stack = []

    def start(limits: Limits = QUICK, **changed: object) -> Running:
        app = create_app(settings.model_copy(update=changed), limits)
        running = serving(app, lifespan="on")
        url = running.__enter__()
        stack.append(running)
        gateway: Gateway = app.gateway
        wait_until(lambda: gateway.is_ready)
        return Running(url, gateway)

    yield start
    for running in reversed(stack):
        running.__exit__(None, None, None)


@dataclass
class Served:
    """`acme` serves the base `acme/llama` and the addon `acme/tuned` on its deployment `main`."""

    running: Running
    engine: FakeEngine
    engine_url: str
    world: World
    key: str
    base: str = "accounts/acme/models/llama"
    addon: str = "accounts/acme/models/tuned"

    @cached_property
    def openai(self) -> openai.OpenAI:
        return self.running.openai(self.key)

    @cached_property
    def http(self) -> httpx.Client:
        return self.running.http(self.key)


@pytest.fixture
def served(
    world: World, engine: FakeEngine, engine_url: str, start_gateway: Callable[..., Running]
) -> Served:
    base = world.add_base("acme", "llama")
    deployment = world.add_deployment("acme", "main", base)
    replica = world.add_replica(deployment, engine_url, "base-uid")
    world.load("acme", "llama-1", base, deployment)
    addon = world.load("acme", "tuned-1", world.add_addon("acme", "tuned", base), deployment)
    world.prove(replica, addon, "addon-uid")
    return Served(start_gateway(), engine, engine_url, world, world.keys["acme"])


@pytest.fixture
def limits() -> Callable[..., Limits]:
    """The tests' limits with some changed."""
    return lambda **changed: replace(QUICK, **changed)


@dataclass(frozen=True)
class RealEngine:
    url: str
    tool_template: str
    """Its chat template, which shows tools."""


@pytest.fixture(scope="package")
def real_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    """The engine with the quickstart's model as a worker starts it, for all tests that ask a real one."""
    folder = tmp_path_factory.mktemp("engine")
    template = folder / "chat_template.jinja"
    template.write_text(TAUGHT)
    parser = call_form(TAUGHT, "llama", True).parser
    wanted = {"enable_adapters": True, "max_lora_rank": 8, "chat_template": TAUGHT, "tool_parser": parser}
    with engine_running(MODEL, folder, template, **wanted) as url:
        yield RealEngine(url, TAUGHT)
