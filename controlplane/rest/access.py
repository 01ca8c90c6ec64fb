"""Finding rows as the standard methods do: by name, within the account, and blind to other tenants."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import ApiError, Code, already_exists, not_found, permission_denied
from controlplane.names import ResourceName
from controlplane.permissions import Grant

Row = TypeVar("Row", bound=Any)


CALLER = "caller"
"""In a session's `info`: on whose behalf the transaction changes things."""
CREATED = "created"
"""In a session's `info`: the name of the resource that the transaction is about, where its path has none."""


async def find(session: AsyncSession, table: type[Row], name: ResourceName, *, lock: bool = False) -> Row:
    """The row with this name, or 404.

    With `lock` it is to be changed: it stays as it is until the transaction ends, and it is 403 for a caller
    who may change only what is the caller's own.
    """
    query = select(table).where(table.account_id == name.account_id, table.id == name.id)
    if hasattr(table, "collection"):
        # Two collections over one table: what was made through one is not found through the other.
        query = query.where(table.collection == name.collection)
    if hasattr(table, "delete_time"):
        query = query.order_by(table.delete_time.desc().nulls_first()).limit(1)
    row: Row | None = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise not_found(str(name))
    if lock:
        refuse_others_rows(session.info.get(CALLER), row, name)
    return row


def refuse_others_rows(caller: Caller | None, row: Any, name: ResourceName | str) -> None:
    """403 for a caller who may change only what is the caller's own."""
    if caller is not None and caller.grant is Grant.OWN and row.created_by != caller.email:
        raise permission_denied(f"the role {caller.role} may change only its own resources, and not {name}")


async def insert(session: AsyncSession, row: Any, name: str) -> None:
    """Add a row, or 409 when its name is taken."""
    session.add(row)
    try:
        await session.flush()
        session.info.setdefault(CREATED, name)
    except IntegrityError as error:
        if "uq_" in str(error.orig):
            raise already_exists(name) from None
        if "fk_" in str(error.orig):
            text = f"{name} cannot be created: something that it names was deleted meanwhile"
            raise ApiError(Code.ABORTED, text) from None
        raise
