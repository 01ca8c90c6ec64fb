"""What an endpoint needs: settings, sessions, object store, hints after the commit, and the caller."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic.alias_generators import to_pascal
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Call, Caller, find_caller, read_credential
from controlplane.config import Settings
from controlplane.db import AsyncDatabase
from controlplane.errors import not_found, permission_denied
from controlplane.permissions import PERMISSIONS, Grant
from controlplane.queue import enqueue
from controlplane.resources.audit_logs.service import Budget, record
from controlplane.resources.quotas.catalog import allowances
from controlplane.resources.quotas.limits import ALLOWANCES
from controlplane.rest.access import CALLER
from controlplane.signin.discovery import Issuers
from controlplane.storage import ObjectStore


class UnitOfWork:
    """One transaction of a caller's change, and the hints that are sent once it is committed."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.hints: list[tuple[str, uuid.UUID]] = []
        self.is_rehearsal = False
        """Nothing of it is to stay: the caller asked what would happen."""

    def hint(self, task: str, uid: uuid.UUID) -> None:
        self.hints.append((task, uid))


@dataclass(frozen=True)
class Context:
    settings: Settings
    db: AsyncDatabase
    store: ObjectStore
    issuers: Issuers
    refusals: Budget = field(default_factory=Budget)
    """How many refused attempts the audit log still takes."""

    @asynccontextmanager
    async def work(self, caller: Caller) -> AsyncIterator[UnitOfWork]:
        """A transaction that ends with a line of the audit log; after its commit the workers are told."""
        async with self.db.session() as session:
            session.info[CALLER] = caller
            session.info[ALLOWANCES] = allowances(self.settings.quotas)
            unit = UnitOfWork(session)
            yield unit
            if unit.is_rehearsal:
                await session.rollback()
                return
            record(session)
        for task, uid in unit.hints:
            await asyncio.to_thread(enqueue, self.settings, task, uid)


async def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


ContextDep = Annotated[Context, Depends(context)]


async def authenticated(request: Request) -> Caller:
    """The authenticated caller; 401 otherwise."""
    # Headers that are declared as parameters cost each request more than the look at the key does.
    key = read_credential(request.headers.get("authorization"), request.headers.get("x-api-key"))
    ctx = await context(request)
    async with ctx.db.single_statements() as connection:
        return await find_caller(connection, key)


CallerDep = Annotated[Caller, Depends(authenticated)]
"""Anybody with a key, whatever the role."""


def may(permission: str, *, other_accounts: bool = False) -> Any:
    """A dependency: the call of a caller whose role has this permission in the account of the path.

    401 without a valid key; 404 for another account, unless the endpoint itself decides what others may
    see there; 403 when the role does not have the permission.
    """
    rule = PERMISSIONS[permission]

    # Async though nothing is awaited: FastAPI calls others in a thread, which costs more than they do.
    async def authorised(request: Request, caller: CallerDep) -> Caller:
        caller = request.state.caller = replace(caller, call=call_of(request))
        account_id = request.path_params.get("account_id", caller.account_id)
        if account_id != caller.account_id and not other_accounts:
            raise not_found(f"accounts/{account_id}")
        grant = rule.grant(caller.role)
        if grant is Grant.NO:
            raise permission_denied(f"the role {caller.role} may not {rule.meaning}")
        return replace(caller, grant=grant)

    authorised.permission = rule  # type: ignore[attr-defined]
    authorised.other_accounts = other_accounts  # type: ignore[attr-defined]
    return Depends(authorised)


def call_of(request: Request) -> Call:
    route = request.scope["route"]
    return Call(
        action=to_pascal(route.name),
        resource=request.url.path.removeprefix("/v1/").partition(":")[0],
        query=request.url.query,
        client_address=request.client.host if request.client else "",
        if_match=request.headers.get("if-match", ""),
        body=getattr(request.state, "json_body", None),
        message=route.body_field.field_info.annotation if route.body_field else None,
    )
