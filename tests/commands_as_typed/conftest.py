"""One server for the whole table: the real app on a real socket, a real database, real storage.

Each line gets an account of its own. Only what needs an engine or a trainer is not there; lines that do are
tried on a whole platform.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import typer
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from cli.main import app
from controlplane.app import create_app
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.encryption import generate_secret_key
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from tests.cli_server.conftest import User
from tests.commands_as_typed.world import BASE_FILES, BASE_ID, World, furnish
from tests.controlplane.conftest import working_on_uploads
from tests.gateway.serving import serving

GPUS = ["NVIDIA H100 80GB HBM3"] * 4
NUMBERS = itertools.count(1)


@dataclass
class Server:
    url: str
    db: Database
    store: ObjectStore
    http: httpx.Client


@pytest.fixture(scope="session")
def typed_settings(
    platform_services: Services, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    address = make_url(platform_services.postgres.url)
    with psycopg.connect(platform_services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE typed TEMPLATE {template_database}")
    return Settings(
        database_url=address.set(database="typed").render_as_string(False),
        redis_url=platform_services.valkey.url,
        s3_endpoint=platform_services.seaweedfs.endpoint,
        s3_access_key=platform_services.seaweedfs.access_key,
        s3_secret_key=platform_services.seaweedfs.secret_key,
        s3_bucket="typed",
        data_dir=tmp_path_factory.mktemp("typed"),
        secret_keys=SecretStr(generate_secret_key()),
    )


@pytest.fixture(scope="module")  # what it makes of the machine must not outlive these tests
def server(typed_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With one public model of the platform's."""
    store = ObjectStore.from_settings(typed_settings)
    store.ensure_bucket()
    db = Database(typed_settings.database_url, pool_size=2)
    with (
        pytest.MonkeyPatch.context() as machine,
        working_on_uploads(typed_settings, db, store),
        serving(create_app(typed_settings), "on") as url,
    ):
        # What the documents ask for can be had here, whatever the machine that the tests run on has.
        for module in ("deployments.engine", "quotas.service"):
            machine.setattr(f"controlplane.resources.{module}.local_devices", lambda: GPUS)
        # One client, and without certificates: making those takes longer than most lines.
        with httpx.Client(base_url=url, verify=False, timeout=60) as http:
            platform = World.of(db, http, "fireworks", tmp_path_factory.mktemp("platform"))
            platform.upload_model(BASE_ID, BASE_FILES, public=True)
            yield Server(url, db, store, http)
    db.close()


@pytest.fixture
def world(server: Server, tmp_path: Path) -> World:
    """A new account, and a home folder with the files that the documents name."""
    home = tmp_path / "home"
    home.mkdir()
    made = World.of(server.db, server.http, f"typed-{next(NUMBERS)}", home, server.store)
    furnish(made)
    return made


@pytest.fixture(scope="session")
def command_tree() -> object:
    return typer.main.get_command(app)


@pytest.fixture
def firectl(server: Server, world: World, command_tree: object) -> Callable[..., object]:
    """firectl in the home folder, with the key of the account's admin in the environment."""
    return User(server.url, world.key, world.home, command_tree)
