"""`hearth admin` and `hearth migrate` on a real database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest

from controlplane.config import Settings
from controlplane.db import Database
from controlplane.resources.tables import ApiKeyRow, UserRow

Admin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hearth(settings: Settings) -> Admin:
    """Runs a `hearth` command on the test's own database."""
    variables = {
        "HEARTH_DATABASE_URL": settings.database_url,
        "HEARTH_REDIS_URL": settings.redis_url,
        "HEARTH_S3_ENDPOINT": settings.s3_endpoint,
        "HEARTH_S3_ACCESS_KEY": settings.s3_access_key,
        "HEARTH_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "HEARTH_S3_BUCKET": settings.s3_bucket,
    }

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launcher.main", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **variables, **more},
            timeout=60,
            check=False,
        )

    return run


def test_an_account_a_user_and_a_key_from_nothing(hearth: Admin, settings: Settings) -> None:
    assert hearth("admin", "create-account", "acme", "--email", "a@acme.example").returncode == 0
    user = ("create-user", "ada", "--account", "acme", "--email", "ada@acme.example", "--role", "admin")
    assert hearth("admin", *user).returncode == 0
    made = hearth("admin", "create-key", "--account", "acme", "--user", "ada", "--name", "laptop")
    assert made.stdout.startswith("fw_")

    database = Database(settings.database_url, pool_size=1)
    with database.session() as session:
        row = session.query(ApiKeyRow).one()
        owner = session.get_one(UserRow, row.user_uid)
        assert (row.display_name, owner.id, owner.role) == ("laptop", "ada", "admin")
    database.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create-key", "--account", "nobody"), "account nobody has no user admin"),
        (
            ("create-user", "ada", "--account", "nobody", "--email", "a@b.example"),
            "account nobody does not exist",
        ),
        (("create-account", "No_Good", "--email", "a@b.example"), "must contain only lower-case letters"),
    ],
)
def test_a_mistake_is_one_line(hearth: Admin, arguments: tuple[str, ...], says: str) -> None:
    refused = hearth("admin", *arguments)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_user_may_have_any_role_of_the_table_and_no_other(hearth: Admin, settings: Settings) -> None:
    assert hearth("admin", "create-account", "acme", "--email", "a@acme.example").returncode == 0
    asked = ("admin", "create-user", "ada", "--account", "acme", "--email", "ada@acme.example", "--role")
    refused = hearth(*asked, "owner")
    assert refused.returncode == 2
    assert "inference-user" in refused.stderr
    assert hearth(*asked, "contributor").returncode == 0
    database = Database(settings.database_url, pool_size=1)
    with database.session() as session:
        assert session.query(UserRow).one().role == "contributor"
    database.close()


def test_migrate_builds_the_schema_and_may_run_again(hearth: Admin, settings: Settings) -> None:
    address = settings.database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(address) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    for _ in range(2):
        done = hearth("migrate")
        assert done.returncode == 0, done.stderr
    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT to_regclass('accounts') IS NOT NULL").fetchone()
    assert found == (True,)


def test_a_database_that_does_not_answer_is_one_line(hearth: Admin) -> None:
    refused = hearth("migrate", HEARTH_DATABASE_URL="postgresql://hearth:x@127.0.0.1:1/hearth")
    assert refused.returncode == 1
    assert refused.stderr.startswith("hearth: ERROR: ")
    assert len(refused.stderr.splitlines()) == 1
