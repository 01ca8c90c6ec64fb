from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.db import now
from controlplane.names import ResourceName
from controlplane.resources.reservations.listing import LISTING
from controlplane.resources.reservations.schemas import Reservation
from controlplane.resources.reservations.tables import ReservationRow
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, list_of

router = collection_router("reservations", "/v1/accounts/{account_id:rid}/reservations")


@router.get("", response_model=list_of(Reservation, "reservations"), summary="List reserved GPUs")
async def list_reservations(
    ctx: ContextDep,
    caller: Annotated[Caller, may("quotas.view")],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(ReservationRow).where(ReservationRow.account_id == account_id)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING, page)
    moment = now()
    messages = [Reservation.of(row, moment) for row in found.rows]
    return reply_page("reservations", messages, found, page.read_mask)


@router.get("/{reservation_id:rid}", response_model=Reservation, summary="Get a reservation")
async def get_reservation(
    ctx: ContextDep,
    caller: Annotated[Caller, may("quotas.view")],
    account_id: str,
    reservation_id: str,
    readMask: str = "",
) -> Response:
    name = ResourceName(account_id, "reservations", reservation_id)
    async with ctx.db.session() as session:
        row = await find(session, ReservationRow, name)
    return reply(Reservation.of(row, now()), readMask)
