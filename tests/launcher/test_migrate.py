"""Several versions and one database: who migrates, who waits, and what happens on a newer schema."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from controlplane.config import Settings
from controlplane.db import migrate
from controlplane.observability.health import NO_SCHEMA
from launcher.parts import api_argv, gateway_argv
from launcher.setup import wait_for_schema

WAIT_SECONDS = 30.0


@pytest.fixture
def emptied(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A database that no migration has been at, as the environment names it."""
    with psycopg.connect(plain(settings), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    monkeypatch.setenv("HEARTH_DATABASE_URL", plain(settings))
    monkeypatch.setenv("HEARTH_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("HEARTH_S3_ENDPOINT", settings.s3_endpoint)
    monkeypatch.setenv("HEARTH_S3_ACCESS_KEY", settings.s3_access_key)
    monkeypatch.setenv("HEARTH_S3_SECRET_KEY", settings.s3_secret_key.get_secret_value())
    yield settings


def test_who_waits_goes_on_when_another_one_has_migrated(emptied: Settings) -> None:
    waiting = threading.Thread(target=wait_for_schema, args=(WAIT_SECONDS,))
    waiting.start()
    assert waiting.is_alive()
    migrate(emptied.database_url)
    waiting.join(WAIT_SECONDS)
    assert not waiting.is_alive()


def test_who_waits_in_vain_says_what_is_missing(emptied: Settings) -> None:
    with pytest.raises(SystemExit) as ended:
        wait_for_schema(0.0)
    assert ended.value.code == f"hearth: ERROR: {NO_SCHEMA}"


def test_an_older_version_starts_on_a_newer_schema_and_cannot_migrate_it(emptied: Settings) -> None:
    migrate(emptied.database_url)
    with psycopg.connect(plain(emptied), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    wait_for_schema(0.0)
    with pytest.raises(ValueError, match=r"cannot be brought to this version's: .*9999"):
        migrate(emptied.database_url)


def test_servers_give_their_last_requests_the_time_that_the_settings_say(settings: Settings) -> None:
    slow = settings.model_copy(update={"drain_seconds": 300})
    for argv in (api_argv(slow), gateway_argv(slow)):
        assert argv[argv.index("--timeout-graceful-shutdown") + 1] == "300"


def plain(settings: Settings) -> str:
    return settings.database_url.replace("+psycopg", "")
