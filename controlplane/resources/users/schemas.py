from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from controlplane.permissions import ROLES
from controlplane.resources.users.tables import UserRow
from controlplane.rest.schema import ApiModel, OneOf, Status, Timestamp, not_returned, output_only

STATES = ("STATE_UNSPECIFIED", "CREATING", "READY", "UPDATING", "DELETING")


class User(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "permission_preset": "it belongs to the role custom, and roles here have fixed permissions",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    service_account: Annotated[
        bool, Field(description="A program: it needs no e-mail address and cannot sign in.")
    ] = False
    create_time: Timestamp | None = output_only()
    role: Annotated[str, Field(description=f"{', '.join(ROLES)}; `user` when unset.")] = ""
    email: Annotated[str, Field(max_length=254)] = ""
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    status: Status | None = output_only()
    update_time: Timestamp | None = output_only()
    permission_preset: str = ""
    first_name: Any = not_returned()
    last_name: Any = not_returned()
    stated_role: Any = not_returned()

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
