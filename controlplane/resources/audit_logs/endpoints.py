from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Response
from sqlalchemy import func, select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.resources.audit_logs.listing import LISTING
from controlplane.resources.audit_logs.schemas import AuditLog
from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply_page
from controlplane.rest.router import collection_router, list_of
from controlplane.rest.schema import Timestamp

router = collection_router("auditLogs", "/v1/accounts/{account_id:rid}/auditLogs")


@router.get(
    "", response_model=list_of(AuditLog, "auditLogs"), summary="List who changed what, the newest first"
)
async def list_audit_logs(
    ctx: ContextDep,
    caller: Annotated[Caller, may("audit.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
    start_time: Annotated[
        Timestamp | None, Query(alias="startTime", description="From this moment on.")
    ] = None,
    end_time: Annotated[Timestamp | None, Query(alias="endTime", description="Before this moment.")] = None,
    email: Annotated[str, Query(description="What this user did.")] = "",
) -> Response:
    query = select(AuditLogRow).where(AuditLogRow.account_id == account_id)
    if start_time is not None:
        query = query.where(AuditLogRow.create_time >= start_time)
    if end_time is not None:
        query = query.where(AuditLogRow.create_time < end_time)
    if email:
        query = query.where(func.lower(AuditLogRow.email) == email.lower())
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    return reply_page("auditLogs", [AuditLog.of(row) for row in found.rows], found, page.read_mask)
