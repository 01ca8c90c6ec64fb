"""Finding rows as the standard methods do: by name, within the account, and blind to other tenants."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import ApiError, Code, already_exists, not_found, permission_denied
from controlplane.names import ResourceName

Row = TypeVar("Row", bound=Any)


def own_account(caller: Caller, account_id: str) -> str:
    """The account, when it is the caller's; otherwise it does not exist as far as the caller can tell."""
    if account_id != caller.account_id:
        raise not_found(f"accounts/{account_id}")
    return account_id


def require_admin(caller: Caller, what: str) -> None:
    if not caller.is_admin:
        raise permission_denied(f"only an admin may {what}")


async def find(session: AsyncSession, table: type[Row], name: ResourceName, *, lock: bool = False) -> Row:
    """The row with this name, or 404. With `lock` it stays as it is until the transaction ends."""
    query = select(table).where(table.account_id == name.account_id, table.id == name.id)
    if hasattr(table, "delete_time"):
        query = query.order_by(table.delete_time.desc().nulls_first()).limit(1)
    row: Row | None = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise not_found(str(name))
    return row


async def insert(session: AsyncSession, row: Any, name: str) -> None:
    """Add a row, or 409 when its name is taken."""
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        if "uq_" in str(error.orig):
            raise already_exists(name) from None
        if "fk_" in str(error.orig):
            text = f"{name} cannot be created: something that it names was deleted meanwhile"
            raise ApiError(Code.ABORTED, text) from None
        raise
