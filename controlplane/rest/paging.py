"""Keyset pages: stable under inserts and deletes, filtered, ordered and counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request
from fastapi.openapi.models import Example as OpenAPIExample
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.config import Settings
from controlplane.errors import invalid
from controlplane.rest.counting import count
from controlplane.rest.filters.conditions import read_filter
from controlplane.rest.filters.nodes import FilterError
from controlplane.rest.listing import Listing
from controlplane.rest.masks import paths_of
from controlplane.rest.ordering import Term, read_order, rows_after
from controlplane.rest.page_tokens import TokenSigner
from controlplane.rest.time_limit import limit_statements

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
FREE_PARAMETERS = ("pageSize", "pageToken", "readMask")
"""What may change from page to page."""


ABOUT_PAGE_SIZE = "How many to return at most: 50 when unset, and never more than 200."
ABOUT_PAGE_TOKEN = (
    "The `nextPageToken` of the page before. All other parameters except `pageSize` and `readMask` must be "
    "as they were for that page."
)
ABOUT_FILTER = (
    "What to list, in the language of [AIP-160](https://google.aip.dev/160), over the fields of the "
    "resource in snake_case or camelCase: `=` `!=` `<` `<=` `>` `>=`, `:` (contains, has), `AND`, `OR` "
    "(which binds tighter), `NOT` or `-`, parentheses, `*` in strings that are compared with `=` or `!=`, "
    "`field:*` (is set) and `field = null` (is not). A word alone is looked for in the name and the "
    "description."
)
FILTER_EXAMPLES: dict[str, OpenAPIExample] = {
    "state": {"value": "state = READY"},
    "several": {"value": 'create_time > "2030-01-31T12:00:00Z" AND (state = READY OR display_name = "a*")'},
    "negation": {"value": "NOT public = true"},
}
ABOUT_ORDER_BY = (
    "Fields, separated by commas, each followed by `desc` for the opposite order. When unset it is `name` "
    "(of API keys `key_id`); `create_time`, the oldest first, for deployments and deployment shapes; "
    "`timestamp desc` for audit logs. What is unset comes last."
)
ABOUT_READ_MASK = "The fields to return, separated by commas; all of them when unset or `*`."


@dataclass(frozen=True)
class PageRequest:
    size: int
    token: str
    filter: str
    order_by: str
    read_mask: str
    tokens: TokenSigner
    seconds: float
    """How long the database may look for it."""


async def page_request(
    request: Request,
    page_size: Annotated[int, Query(alias="pageSize", description=ABOUT_PAGE_SIZE)] = 0,
    page_token: Annotated[str, Query(alias="pageToken", description=ABOUT_PAGE_TOKEN)] = "",
    filter_: Annotated[
        str, Query(alias="filter", description=ABOUT_FILTER, openapi_examples=FILTER_EXAMPLES)
    ] = "",
    order_by: Annotated[
        str, Query(alias="orderBy", description=ABOUT_ORDER_BY, examples=["create_time desc,name"])
    ] = "",
    read_mask: Annotated[
        str, Query(alias="readMask", description=ABOUT_READ_MASK, examples=["name,state"])
    ] = "",
) -> PageRequest:
    """The list parameters of every collection."""
    if page_size < 0:
        raise invalid("pageSize must not be negative", "pageSize")
    settings: Settings = request.app.state.context.settings
    return PageRequest(
        size=min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
        token=page_token,
        filter=filter_,
        order_by=order_by,
        read_mask=read_mask,
        tokens=TokenSigner(
            settings.page_token_secret, list_of_token(request.url.path, request.query_params.multi_items())
        ),
        seconds=settings.list_timeout_seconds,
    )


def list_of_token(path: str, parameters: Iterable[tuple[str, str]]) -> str:
    """The list that a token is good for: its path, and all parameters that choose and order its rows."""
    chosen = [(name, value) for name, value in parameters if value and name not in FREE_PARAMETERS]
    return f"{path}?{urlencode(sorted(chosen))}"


@dataclass(frozen=True)
class Page:
    rows: Sequence[Any]
    next_token: str
    total_size: int


async def fetch_page(session: AsyncSession, query: Select[Any], listing: Listing, page: PageRequest) -> Page:
    """One page of `query`, which selects one kind of row: all of the collection that the caller may see."""
    paths_of(listing.message, page.read_mask, "readMask")  # also where no row is there to be shown
    chosen = _filtered(query, listing, page.filter)
    terms = read_order(page.order_by, listing)
    position = page.tokens.read(page.token, terms) if page.token else None
    await limit_statements(session, page.seconds)
    found = await _rows_after(session, chosen, terms, position, page.size + 1)
    more = len(found) > page.size
    total = await count(session, chosen) if more or page.token else len(found)
    shown = found[: page.size]
    next_token = page.tokens.write(terms, shown[-1][1:]) if more else ""
    return Page([row[0] for row in shown], next_token, total)


def _filtered(query: Select[Any], listing: Listing, text: str) -> Select[Any]:
    try:
        condition = read_filter(text, listing)
    except FilterError as error:
        raise invalid(str(error), "filter") from None
    return query if condition is None else query.where(condition)


async def _rows_after(
    session: AsyncSession,
    query: Select[Any],
    terms: Sequence[Term],
    position: Sequence[Any] | None,
    limit: int,
) -> Sequence[Any]:
    """Rows with what they are ordered by."""
    rest = query if position is None else query.where(rows_after(terms, position))
    ordered = rest.add_columns(*(term.expression for term in terms)).order_by(*(t.clause for t in terms))
    return (await session.execute(ordered.limit(limit))).all()
