"""Brings database and object store to where the platform can start: schema, bucket, first account and key.

    python -m launcher.setup DATA_DIR BASE_URL

A process of its own under `hearth up`, so that the supervisor stays small. Settings come from HEARTH_*.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from controlplane.bootstrap import bootstrap
from controlplane.config import Settings, load_settings
from controlplane.db import Database, migrate
from controlplane.observability.health import missing_of_sync_database
from controlplane.storage import ObjectStore, StorageError
from launcher.data_dir import DataDir

KEY_VARIABLE = "FIREWORKS_API_KEY"
SCHEMA_SECONDS = 300.0
LOOK_SECONDS = 0.5


def main() -> None:
    data_dir = DataDir.at(Path(sys.argv[1]))
    settings = prepare_stores()
    with told_plainly():
        write_access(data_dir, settings, sys.argv[2])


def prepare_stores() -> Settings:
    """The newest schema and the bucket. Safe to run at every start, from several processes at once."""
    settings = load_settings()
    with told_plainly():
        migrate(settings.database_url)
        ObjectStore.from_settings(settings).ensure_bucket()
    return settings


def wait_for_schema(seconds: float = SCHEMA_SECONDS) -> None:
    """Until somebody else has brought the schema to where this version needs it; else exit status 1."""
    database, deadline = Database(load_settings().database_url, pool_size=1), time.monotonic() + seconds
    while missing := missing_of_sync_database(database):
        if time.monotonic() > deadline:
            sys.exit(f"hearth: ERROR: {missing[0]}")
        time.sleep(LOOK_SECONDS)
    database.close()


def write_access(data_dir: DataDir, settings: Settings, base_url: str) -> None:
    """Account, admin and the file `env`. The first start makes a key, and one that finds `env` gone."""
    known_key = data_dir.read_env().get(KEY_VARIABLE)
    result = bootstrap(settings, with_key=known_key is None)
    data_dir.write_env(
        {
            "FIREWORKS_BASE_URL": base_url,
            KEY_VARIABLE: str(result.key or known_key),
            "FIREWORKS_ACCOUNT_ID": result.account_id,
        }
    )


@contextmanager
def told_plainly() -> Iterator[None]:
    """One line for what is wrong around us; exit status 1."""
    try:
        yield
    except (SQLAlchemyError, StorageError, LookupError, ValueError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        sys.exit(f"hearth: ERROR: {first_line}")


if __name__ == "__main__":
    main()
