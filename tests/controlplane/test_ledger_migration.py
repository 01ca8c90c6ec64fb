"""What was metered before there was a ledger is in it."""

from __future__ import annotations

import uuid

import psycopg
from alembic import command
from alembic.config import Config

from controlplane.db import PROJECT_ROOT


def test_rows_of_usage_become_entries(platform_services):
    name = f"migration_{uuid.uuid4().hex[:12]}"
    server = platform_services.postgres.url
    address = server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    config = Config(toml_file=str(PROJECT_ROOT / "pyproject.toml"))
    config.attributes["database_url"] = address
    try:
        command.upgrade(config, "0007")
        with psycopg.connect(address) as connection:
            connection.execute(
                "INSERT INTO usage VALUES (%s, 'rival', 'u', 'k', 'accounts/acme/models/m', "
                "'accounts/acme/deployments/d', 'completions', 200, 7, 4, 3, false, 12, now())",
                (uuid.uuid4(),),
            )
        command.upgrade(config, "head")
        assert entries(address) == [("rival", "acme", "inference", 7, 4, 3, 0)]
        command.downgrade(config, "0007")
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT account_id, prompt_tokens FROM usage").fetchall() == [
                ("rival", 7)
            ]
        command.upgrade(config, "head")
        assert entries(address) == [("rival", "acme", "inference", 7, 4, 3, 0)]
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def entries(address: str) -> list[tuple[object, ...]]:
    columns = (
        "account_id, owner_id, product, prompt_tokens, cached_prompt_tokens, completion_tokens, cost_nanos"
    )
    with psycopg.connect(address) as connection:
        return connection.execute(f"SELECT {columns} FROM ledger").fetchall()
