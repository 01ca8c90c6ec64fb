"""Keyset pages: stable under inserts and deletes, with a token bound to its query."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.db import UNSTORABLE
from controlplane.errors import invalid

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200


@dataclass(frozen=True)
class PageRequest:
    size: int
    token: str
    read_mask: str


def page_request(
    page_size: Annotated[int, Query(alias="pageSize", description="At most 200; 50 when unset.")] = 0,
    page_token: Annotated[str, Query(alias="pageToken")] = "",
    filter_: Annotated[str, Query(alias="filter", description="Not supported yet.")] = "",
    order_by: Annotated[str, Query(alias="orderBy", description="Only `name` for now.")] = "",
    read_mask: Annotated[str, Query(alias="readMask")] = "",
) -> PageRequest:
    """The list parameters of every collection."""
    if page_size < 0:
        raise invalid("pageSize must not be negative", "pageSize")
    if filter_:
        raise invalid("filter is not supported yet; list everything and choose on the client", "filter")
    if order_by not in ("", "name"):
        raise invalid(f"orderBy {order_by!r} is not supported yet; lists are ordered by name", "orderBy")
    return PageRequest(min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE), page_token, read_mask)


@dataclass(frozen=True)
class Page:
    rows: Sequence[Any]
    next_token: str
    total_size: int


async def fetch_page(
    session: AsyncSession, query: Select[Any], key: InstrumentedAttribute[Any], page: PageRequest, scope: str
) -> Page:
    """One page of `query` in the order of `key`, a column that is unique and text within the query.

    `scope` names the query, so that a token is refused on another one.
    """
    total = await session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
    after = _read_token(page.token, scope) if page.token else None
    rest = query.where(key > after) if after is not None else query
    rows = (await session.scalars(rest.order_by(key).limit(page.size + 1))).all()
    shown = rows[: page.size]
    more = len(rows) > page.size
    return Page(shown, _write_token(getattr(shown[-1], key.key), scope) if more else "", total or 0)


def _write_token(after: str, scope: str) -> str:
    raw = json.dumps([after, _digest(scope)]).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_token(token: str, scope: str) -> str:
    try:
        raw = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        after, digest = json.loads(raw)
    except (ValueError, binascii.Error, TypeError, RecursionError):
        raise invalid("pageToken is not one that this server gave", "pageToken") from None
    if not isinstance(after, str) or UNSTORABLE.search(after) or digest != _digest(scope):
        raise invalid("pageToken belongs to another query", "pageToken")
    return after


def _digest(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:16]
