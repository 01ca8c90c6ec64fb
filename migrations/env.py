"""How Alembic reaches the database: the caller's URL, or HEARTH_DATABASE_URL."""

from __future__ import annotations

import os

from alembic import context

from controlplane.db import Base, import_tables, make_engine

import_tables()


def database_url() -> str:
    url = context.config.attributes.get("database_url") or os.environ.get("HEARTH_DATABASE_URL")
    if not url:
        raise SystemExit("hearth: HEARTH_DATABASE_URL: is not set")
    return str(url).replace("postgresql://", "postgresql+psycopg://", 1)


def run_migrations() -> None:
    engine = make_engine(database_url(), pool_size=1)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run_migrations()
