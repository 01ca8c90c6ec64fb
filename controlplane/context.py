"""What an endpoint needs: settings, sessions, object store, hints after the commit, and the caller."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Call, Caller, find_caller, read_credential
from controlplane.config import Settings
from controlplane.db import AsyncDatabase
from controlplane.errors import not_found, permission_denied
from controlplane.permissions import PERMISSIONS, Grant
from controlplane.queue import enqueue
from controlplane.resources.audit_logs.service import record
from controlplane.rest.access import CALLER
from controlplane.storage import ObjectStore


class UnitOfWork:
    """One transaction of a caller's change, and the hints that are sent once it is committed."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.hints: list[tuple[str, uuid.UUID]] = []

    def hint(self, task: str, uid: uuid.UUID) -> None:
        self.hints.append((task, uid))


@dataclass(frozen=True)
class Context:
    settings: Settings
    db: AsyncDatabase
    store: ObjectStore

    @asynccontextmanager
    async def work(self, caller: Caller) -> AsyncIterator[UnitOfWork]:
        """A transaction that ends with a line of the audit log; after its commit the workers are told."""
        async with self.db.session() as session:
            session.info[CALLER] = caller
            unit = UnitOfWork(session)
            yield unit
            record(session)
        for task, uid in unit.hints:
            await asyncio.to_thread(enqueue, self.settings, task, uid)


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


ContextDep = Annotated[Context, Depends(context)]


# For `/openapi.json` only: `read_credential` reads the headers, and says what is wrong with them.
BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)
API_KEY = APIKeyHeader(name="X-Api-Key", scheme_name="apiKey", auto_error=False)


async def authenticated(
    ctx: ContextDep,
    authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    x_api_key: Annotated[str | None, Header(include_in_schema=False)] = None,
    _bearer: Annotated[object, Depends(BEARER)] = None,
    _api_key: Annotated[object, Depends(API_KEY)] = None,
) -> Caller:
    """The authenticated caller; 401 otherwise."""
    key = read_credential(authorization, x_api_key)
    async with ctx.db.session() as session:
        return await find_caller(session, key)


CallerDep = Annotated[Caller, Depends(authenticated)]
"""Anybody with a key, whatever the role."""


def may(permission: str, *, other_accounts: bool = False) -> Any:
    """A dependency: the call of a caller whose role has this permission in the account of the path.

    401 without a valid key; 404 for another account, unless the endpoint itself decides what others may
    see there; 403 when the role does not have the permission.
    """
    rule = PERMISSIONS[permission]

    def authorised(request: Request, caller: CallerDep) -> Caller:
        account_id = request.path_params.get("account_id", caller.account_id)
        if account_id != caller.account_id and not other_accounts:
            raise not_found(f"accounts/{account_id}")
        grant = rule.grant(caller.role)
        if grant is Grant.NO:
            raise permission_denied(f"the role {caller.role} may not {rule.meaning}")
        return replace(caller, grant=grant, call=call_of(request))

    authorised.permission = rule  # type: ignore[attr-defined]
    return Depends(authorised)


def call_of(request: Request) -> Call:
    return Call(
        action=request.scope["route"].name,
        resource=request.url.path.removeprefix("/v1/").partition(":")[0],
        query=request.url.query,
        client_address=request.client.host if request.client else "",
        if_match=request.headers.get("if-match", ""),
        body=getattr(request.state, "json_body", None),
    )
