"""Refused attempts in the audit log: bounded, and never in the way of the answer."""

from __future__ import annotations

import logging

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError

from controlplane.auth import Caller
from controlplane.errors import ApiError
from controlplane.resources.audit_logs.service import refused

log = logging.getLogger(__name__)


async def record_refusal(request: Request, error: ApiError) -> None:
    """Note that a caller tried what the caller's role may not, so often as the budget allows."""
    caller: Caller | None = getattr(request.state, "caller", None)
    context = request.app.state.context
    if caller is None or not context.refusals.take(caller):
        return
    try:
        async with context.db.session() as session:
            session.add(refused(caller, error))
    except SQLAlchemyError as problem:
        log.warning("a refused attempt is not in the audit log: %s", type(problem).__name__)
