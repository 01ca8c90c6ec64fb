from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from controlplane.resources.users.tables import UserRow
from controlplane.rest.schema import ApiModel, Status, Timestamp, output_only

ROLES = ("admin", "user", "contributor", "inference-user")


class User(ApiModel):
    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    service_account: bool = False
    create_time: Timestamp | None = output_only()
    role: str = ""
    email: Annotated[str, Field(max_length=254)] = ""
    state: str = output_only("STATE_UNSPECIFIED")
    status: Status | None = output_only()
    update_time: Timestamp | None = output_only()

    @classmethod
    def of(cls, row: UserRow) -> Self:
        return cls(
            name=f"accounts/{row.account_id}/users/{row.id}",
            display_name=row.display_name,
            service_account=row.service_account,
            create_time=row.create_time,
            role=row.role,
            email=row.email,
            state=row.state,
            status=Status.of(row),
            update_time=row.update_time,
        )
