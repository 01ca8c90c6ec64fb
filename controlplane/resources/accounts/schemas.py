from __future__ import annotations

from typing import Annotated, Self

from controlplane.resources.accounts.states import ACCOUNT_TYPES, STATES, SUSPEND_STATES, UNSUSPENDED
from controlplane.resources.accounts.tables import AccountRow
from controlplane.rest.schema import ApiModel, OneOf, Status, Timestamp, output_only


class Account(ApiModel):
    """Made and changed by whoever runs the platform: there is no create, update or delete."""

    name: str = output_only("")
    display_name: str = output_only("")
    create_time: Timestamp | None = output_only()
    account_type: Annotated[str, OneOf(*ACCOUNT_TYPES)] = output_only(ACCOUNT_TYPES[0])
    email: str = output_only("")
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    status: Status | None = output_only()
    suspend_state: Annotated[str, OneOf(*SUSPEND_STATES)] = output_only(UNSUSPENDED)
    update_time: Timestamp | None = output_only()

    @classmethod
    def of(cls, row: AccountRow) -> Self:
        return cls(
            name=f"accounts/{row.id}",
            display_name=row.display_name,
            create_time=row.create_time,
            account_type=row.account_type,
            email=row.email,
            state=row.state,
            status=Status.of(row),
            suspend_state=row.suspend_state,
            update_time=row.update_time,
        )
