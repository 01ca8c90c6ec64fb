"""Secrets at rest: encrypted with keys of the settings, which can be changed while the platform runs."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Table, select, update
from sqlalchemy.orm import Session

from controlplane.config import Settings, split_keys
from controlplane.db import Base, Database, import_tables
from controlplane.errors import ApiError, Code

log = logging.getLogger(__name__)

SETTING = "HEARTH_SECRET_KEYS"

ENCRYPTED_COLUMNS: tuple[tuple[str, str], ...] = (
    ("secrets", "encrypted_value"),
    ("fine_tuning_jobs", "wandb_api_key"),
    ("identity_providers", "client_secret"),
    ("sign_ins", "device_code"),
    ("user_sessions", "provider_refresh_token"),
)
"""(table, column) of everything that `Cipher.encrypt` wrote; the tables have a `uid`.

A column that is missing here is left behind when the key is rotated.
"""


class EncryptionError(ApiError):
    """A value that cannot be encrypted or read with the keys at hand. The text holds neither."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FAILED_PRECONDITION, message)


class Cipher:
    """Encrypts with the first key and decrypts with any. Without keys it refuses both, and nothing else."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [Fernet(key) for key in keys]

    @classmethod
    def from_settings(cls, settings: Settings) -> Cipher:
        return cls(split_keys(settings.secret_keys.get_secret_value()) if settings.secret_keys else [])

    def encrypt(self, text: str) -> str:
        return self._all_keys().encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        try:
            return self._all_keys().decrypt(token).decode()
        except InvalidToken:
            raise EncryptionError(
                f"a stored secret was encrypted with a key that {SETTING} does not have; put that key back"
            ) from None

    def is_current(self, token: str) -> bool:
        """Whether the first key encrypted this."""
        self._all_keys()
        try:
            self._keys[0].decrypt(token)
        except InvalidToken:
            return False
        return True

    def _all_keys(self) -> MultiFernet:
        if not self._keys:
            raise EncryptionError(f"secrets cannot be stored or read: {SETTING} is not set on this server")
        return MultiFernet(self._keys)


def generate_secret_key() -> str:
    return Fernet.generate_key().decode()


@dataclass
class Rotation:
    """What a rotation did."""

    changed: int = 0
    current: int = 0
    """Values that the first key had encrypted already."""
    failed: list[str] = field(default_factory=list)
    """`table.column uid` of what no key decrypts."""


def rotate(database: Database, cipher: Cipher, batch: int = 100) -> Rotation:
    """Encrypt every stored secret with the first key. It may be interrupted, and run again at any time."""
    import_tables()
    done = Rotation()
    for table_name, column in ENCRYPTED_COLUMNS:
        table = Base.metadata.tables[table_name]
        last: uuid.UUID | None = uuid.UUID(int=0)
        while last is not None:
            with database.session() as session:
                last = _rotate_batch(session, cipher, table, column, last, batch, done)
    return done


def _rotate_batch(
    session: Session, cipher: Cipher, table: Table, column: str, after: uuid.UUID, batch: int, done: Rotation
) -> uuid.UUID | None:
    """The uid of the batch's last row; None when there was none."""
    uid: uuid.UUID | None = None
    for uid, token in _locked(session, table, column, after, batch):
        if cipher.is_current(token):
            done.current += 1
            continue
        try:
            fresh = cipher.encrypt(cipher.decrypt(token))
        except EncryptionError:
            done.failed.append(f"{table.name}.{column} {uid}")
            continue
        session.execute(update(table).where(table.c.uid == uid).values({column: fresh, **_untouched(table)}))
        done.changed += 1
    return uid


def _locked(
    session: Session, table: Table, column: str, after: uuid.UUID, batch: int
) -> Iterator[tuple[uuid.UUID, str]]:
    stored = table.c[column]
    query = select(table.c.uid, stored).where(table.c.uid > after, stored.is_not(None), stored != "")
    rows = session.execute(query.order_by(table.c.uid).limit(batch).with_for_update())
    yield from rows.tuples()


def _untouched(table: Table) -> dict[str, Any]:
    """The resource stays as old as it is: its secret is the same."""
    return {"update_time": table.c.update_time} if "update_time" in table.c else {}
