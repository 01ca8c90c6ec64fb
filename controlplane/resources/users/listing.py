from __future__ import annotations

from controlplane.resources.users.schemas import STATES, User
from controlplane.resources.users.tables import UserRow
from controlplane.rest.filters.fields import boolean, enum, text
from controlplane.rest.listing import Listing, resource_fields, state_fields

ROLES = ("admin", "user", "contributor", "inference-user", "custom")

LISTING = Listing(
    key="users",
    message=User,
    unique=UserRow.uid,
    fields={
        **resource_fields(UserRow, "users"),
        **state_fields(UserRow, STATES[1:]),
        "service_account": boolean(UserRow.service_account),
        "role": enum(UserRow.role, ROLES),
        "email": text(UserRow.email),
    },
    search=("name", "display_name", "email"),
)
