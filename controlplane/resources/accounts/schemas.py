from __future__ import annotations

from typing import Self

from controlplane.resources.accounts.tables import AccountRow
from controlplane.rest.schema import ApiModel, Status, Timestamp, output_only


class Account(ApiModel):
    name: str = output_only("")
    display_name: str = ""
    create_time: Timestamp | None = output_only()
    account_type: str = output_only("ACCOUNT_TYPE_UNSPECIFIED")
    email: str = ""
    state: str = output_only("STATE_UNSPECIFIED")
    status: Status | None = output_only()
    suspend_state: str = output_only("UNSUSPENDED")
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
            update_time=row.update_time,
        )
