"""The database: engine, sessions, the columns that several tables share, and the migrations."""

from __future__ import annotations

import math
import re
import select
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DateTime,
    Dialect,
    Engine,
    MetaData,
    String,
    Text,
    TypeDecorator,
    Uuid,
    create_engine,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

PROJECT_ROOT = Path(__file__).resolve().parent.parent

# Any two migrations that start at once wait for each other on this lock.
MIGRATION_LOCK = 0x48454152


def storable(value: Any) -> Any:
    """The same value as PostgreSQL takes it: without NUL, half surrogates and numbers that are none.

    Clients' own input is refused for these; this is about what workers read in files, logs and answers.
    """
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class StorableText(TypeDecorator[str]):
    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(storable(value))


class StorableJson(TypeDecorator[Any]):
    impl = JSONB
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return storable(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: StorableJson,
        list[Any]: StorableJson,
        str: StorableText,
        uuid.UUID: Uuid,
    }


def now() -> datetime:
    return datetime.now(UTC)


class ResourceColumns:
    """What every resource of an account has."""

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    id: Mapped[str] = mapped_column(String(63))
    display_name: Mapped[str] = mapped_column(default="")
    create_time: Mapped[datetime] = mapped_column(default=now)
    update_time: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class StateColumns:
    """State, reason code and message: three fields, the message naming the root cause."""

    state: Mapped[str] = mapped_column(String(40))
    status_code: Mapped[str] = mapped_column(String(40), default="OK")
    status_message: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(String(60), default="")


class LeaseColumns:
    """A row that workers make true. `next_reconcile_at` NULL means that nothing is to be done."""

    lease_token: Mapped[uuid.UUID | None] = mapped_column(default=None)
    lease_expires_at: Mapped[datetime | None] = mapped_column(default=None)
    next_reconcile_at: Mapped[datetime | None] = mapped_column(default=None, index=True)
    lease_claims: Mapped[int] = mapped_column(default=0, server_default="0")
    """Claims since a visit last ended well: a row at which workers fail or die is not tried for ever."""


def make_engine(database_url: str, pool_size: int = 10) -> Engine:
    """Opens up to twice `pool_size` connections. Its errors, which are logged, show no statement's values."""
    engine = create_engine(database_url, pool_size=pool_size, max_overflow=pool_size, hide_parameters=True)
    event.listen(engine, "checkout", replace_ended)
    return engine


def make_async_engine(database_url: str, pool_size: int = 10) -> AsyncEngine:
    engine = create_async_engine(
        database_url, pool_size=pool_size, max_overflow=pool_size, hide_parameters=True
    )
    event.listen(engine.sync_engine, "checkout", replace_ended)
    return engine


def replace_ended(connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that the server has ended while it was idle.

    An idle connection has nothing to read but the server's last words. Looking at the socket costs
    microseconds, where SQLAlchemy's own pre-ping asks the server each time.
    """
    driver = getattr(connection, "driver_connection", connection)
    socket = select.poll()  # unlike select(), it takes descriptors over 1024
    socket.register(driver.fileno(), select.POLLIN)
    if socket.poll(0):
        raise DisconnectionError("the server has ended the connection")


class Database:
    """Sync sessions, for workers and commands."""

    def __init__(self, database_url: str, pool_size: int = 10) -> None:
        self.engine = make_engine(database_url, pool_size)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end of the block, rolled back when it raises."""
        with self._sessions() as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()


class AsyncDatabase:
    """Async sessions, for the two ASGI apps."""

    def __init__(self, database_url: str, pool_size: int = 10, info: Mapping[str, Any] | None = None) -> None:
        """`info` is what every session knows of the platform, as `session.info`."""
        self.engine = make_async_engine(database_url, pool_size)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, info=dict(info or {}))
        self._autocommitting = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed at the end of the block, rolled back when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def single_statements(self) -> AsyncIterator[AsyncConnection]:
        """Statements that each stand alone, without the two round trips that a transaction costs."""
        async with self._autocommitting.connect() as connection:
            yield connection

    async def close(self) -> None:
        await self.engine.dispose()


def import_tables() -> None:
    """Register every table on `Base.metadata`."""
    import controlplane.resources.tables  # noqa: F401


def migrate(database_url: str) -> None:
    """Bring the schema to the newest revision. Safe to run from several processes at once.

    Raises ValueError for a schema of a newer Hearth, whose revisions this one does not know.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(toml_file=str(PROJECT_ROOT / "pyproject.toml"))
    config.attributes["database_url"] = database_url
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            connection.commit()
            command.upgrade(config, "head")
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
    except CommandError as error:
        raise ValueError(f"the schema cannot be brought to this version's: {error}") from error
    finally:
        engine.dispose()
