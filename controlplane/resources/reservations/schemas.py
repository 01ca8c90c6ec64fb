from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from controlplane.resources.reservations.service import STATES, state_at
from controlplane.resources.reservations.tables import ReservationRow
from controlplane.rest.schema import ApiModel, OneOf, Timestamp, output_only

REGION = "REGION_UNSPECIFIED"
MULTI_REGION = "MULTI_REGION_UNSPECIFIED"


class Reservation(ApiModel):
    """Made by the platform's operator; the API only shows it."""

    name: str = output_only("")
    display_name: str = output_only("")
    description: str = output_only("")
    create_time: Timestamp | None = output_only()
    update_time: Timestamp | None = output_only()
    created_by: str = output_only("")
    accelerator_type: str = output_only("ACCELERATOR_TYPE_UNSPECIFIED")
    reserved_count: int = output_only(0)
    region: str = output_only(REGION)
    multi_region: str = output_only(MULTI_REGION)
    start_time: Timestamp | None = output_only()
    end_time: Timestamp | None = output_only()
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])

    @classmethod
    def of(cls, row: ReservationRow, moment: datetime) -> Self:
        return cls(
            name=row.name,
            display_name=row.display_name,
            description=row.description,
            create_time=row.create_time,
            update_time=row.update_time,
            created_by=row.created_by,
            accelerator_type=row.accelerator_type,
            reserved_count=row.reserved_count,
            region=row.region or REGION,
            multi_region=row.multi_region or MULTI_REGION,
            start_time=row.start_time,
            end_time=row.end_time,
            state=state_at(row, moment),
        )
