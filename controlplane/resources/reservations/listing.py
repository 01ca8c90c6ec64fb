from __future__ import annotations

from sqlalchemy import case, func

from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES, UNSPECIFIED
from controlplane.resources.reservations.schemas import MULTI_REGION, REGION, Reservation
from controlplane.resources.reservations.service import STATES
from controlplane.resources.reservations.tables import ReservationRow
from controlplane.rest.filters.fields import enum, integer, text, time
from controlplane.rest.listing import Listing, resource_fields

STATE = case(
    (func.now() < ReservationRow.start_time, "STATE_UNSPECIFIED"),
    (func.now() < ReservationRow.end_time, "ACTIVE"),
    else_="EXPIRED",
)

LISTING = Listing(
    key="reservations",
    message=Reservation,
    unique=ReservationRow.id,
    fields={
        **resource_fields(ReservationRow, "reservations"),
        "description": text(ReservationRow.description),
        "created_by": text(ReservationRow.created_by),
        "accelerator_type": enum(ReservationRow.accelerator_type, (UNSPECIFIED, *ACCELERATOR_TYPES)),
        "reserved_count": integer(ReservationRow.reserved_count),
        "region": enum(func.coalesce(func.nullif(ReservationRow.region, ""), REGION), nullable=False),
        "multi_region": enum(
            func.coalesce(func.nullif(ReservationRow.multi_region, ""), MULTI_REGION), nullable=False
        ),
        "start_time": time(ReservationRow.start_time),
        "end_time": time(ReservationRow.end_time),
        "state": enum(STATE, STATES, nullable=False),
    },
)
