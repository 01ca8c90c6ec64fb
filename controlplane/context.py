"""What an endpoint needs: settings, sessions, object store, hints after the commit, and the caller."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller, find_caller, read_credential
from controlplane.config import Settings
from controlplane.db import AsyncDatabase
from controlplane.queue import enqueue
from controlplane.storage import ObjectStore


class UnitOfWork:
    """One transaction, and the hints that are sent once it is committed."""

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
    async def work(self) -> AsyncIterator[UnitOfWork]:
        """A transaction; after its commit the workers are told what to look at."""
        async with self.db.session() as session:
            unit = UnitOfWork(session)
            yield unit
        for task, uid in unit.hints:
            await asyncio.to_thread(enqueue, self.settings, task, uid)


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


ContextDep = Annotated[Context, Depends(context)]


# For `/openapi.json` only: `read_credential` reads the headers, and says what is wrong with them.
BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)
API_KEY = APIKeyHeader(name="X-Api-Key", scheme_name="apiKey", auto_error=False)


async def caller(
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


CallerDep = Annotated[Caller, Depends(caller)]
