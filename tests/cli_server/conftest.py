"""firectl against the real app: a real socket, a real database, real storage; only engines are not there."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr

from cli.main import app
from controlplane.bootstrap import create_key, ensure_user
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.encryption import generate_secret_key
from controlplane.resources.ledger.entries import Entry, write_entries
from controlplane.resources.tables import ReservationRow
from tests.cli.conftest import Ran
from tests.controlplane.conftest import add_model, base
from tests.sdk.conftest import admin_key, base_url, db, other_key, uploads_worker

__all__ = ["add_model", "admin_key", "base", "base_url", "db", "other_key", "uploads_worker"]

Firectl = Callable[..., Ran]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Secrets need a key to be encrypted with."""
    return settings.model_copy(update={"secret_keys": SecretStr(generate_secret_key())})


@dataclass
class User:
    """Somebody at a shell: a home directory, a key, and nothing but the environment to name the server."""

    base_url: str
    key: str
    home: Path
    tree: Any

    def __call__(self, *argv: str, stdin: str = "", env: dict[str, str] | None = None) -> Ran:
        """Runs one command line, with `stdin` in a pipe."""
        settings = {
            "HOME": str(self.home),
            "TZ": "UTC",
            "FIREWORKS_API_KEY": self.key,
            "FIREWORKS_BASE_URL": self.base_url,
            **(env or {}),
        }
        out, err = io.StringIO(), io.StringIO()
        piped = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.delenv("FIREWORKS_ACCOUNT_ID", raising=False)
            patch.setattr("sys.stdin", piped)
            patch.chdir(self.home)
            for name, value in settings.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                self.tree.main(list(argv))
        return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def done(self, *argv: str, **options: Any) -> Ran:
        """The same for what has to work."""
        ran = self(*argv, **options)
        assert ran.code == 0, f"firectl {' '.join(argv)}: {ran.err}"
        return ran

    def json(self, *argv: str, **options: Any) -> Any:
        """What a command that has to work prints as JSON."""
        return self.done(*argv, "-o", "json", **options).json


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def firectl(base_url: str, admin_key: str, home: Path) -> User:
    """An admin of the account `hearth`."""
    return User(base_url, admin_key, home, typer.main.get_command(app))


@pytest.fixture
def as_user(firectl: User, db: Database) -> Callable[[str], User]:
    """Somebody else of the same account, with the role that is asked for."""

    def made(role: str) -> User:
        with db.session() as session:
            user = ensure_user(session, "hearth", role, f"{role}@hearth.example", role)
            key = create_key(session, user, "test")
        return User(firectl.base_url, key, firectl.home, firectl.tree)

    return made


@pytest.fixture
def reserve(db: Database, admin_key: str) -> Callable[..., None]:
    """Reserves 8 GPUs for the account `hearth`, from and to so many days from now."""

    def made(id: str, *, days: tuple[int, int]) -> None:
        start, end = (datetime.now(UTC) + timedelta(days=number) for number in days)
        with db.session() as session:
            session.add(
                ReservationRow(
                    account_id="hearth",
                    id=id,
                    accelerator_type="NVIDIA_H100_80GB",
                    reserved_count=8,
                    start_time=start,
                    end_time=end,
                )
            )

    return made


@pytest.fixture
def spend(db: Database, admin_key: str) -> Callable[..., None]:
    """Has the account `hearth` pay for 7 tokens of a model of the platform's, just now."""

    def paid(model: str, *, dollars: int) -> None:
        entry = Entry(
            uid=uuid.uuid4(),
            create_time=datetime.now(UTC),
            account_id="hearth",
            owner_id="fireworks",
            product="inference",
            model=f"accounts/fireworks/models/{model}",
            deployment="accounts/fireworks/deployments/shared",
            prompt_tokens=7,
            cost_nanos=dollars * 10**9,
        )
        with db.session() as session:
            write_entries(session, [entry])

    return paid
