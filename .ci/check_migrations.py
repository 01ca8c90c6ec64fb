"""Whether the migrations build exactly the tables that the code has: `alembic check` on a fresh database."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from controlplane.db import PROJECT_ROOT, migrate
from launcher.embedded import Services
from launcher.program import last_words, spawn

START_SECONDS = 60.0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hearth-migrations-") as folder:
        postgres = Services.of(Path(folder)).postgres
        program = postgres.program(Path(folder) / "postgres.log")
        process = spawn(program)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not program.ready(process.pid):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"PostgreSQL did not start: {last_words(program.log)}")
                time.sleep(0.05)
            check(postgres.url)
        finally:
            process.send_signal(program.stop_signal)
            process.wait()


def check(url: str) -> None:
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    config = Config(toml_file=str(PROJECT_ROOT / "pyproject.toml"))
    config.attributes["database_url"] = url
    try:
        command.check(config)
    except CommandError as error:
        sys.exit(f"the migrations do not build what the code says: {error}")


if __name__ == "__main__":
    main()
