from __future__ import annotations

from controlplane.resources.accounts.schemas import Account
from controlplane.resources.accounts.states import ACCOUNT_TYPES, STATES, SUSPEND_STATES
from controlplane.resources.accounts.tables import AccountRow
from controlplane.rest.filters.fields import enum, name_of, text, time
from controlplane.rest.listing import Listing, state_fields

LISTING = Listing(
    key="accounts",
    message=Account,
    unique=AccountRow.id,
    fields={
        "name": name_of(("accounts", AccountRow.id)),
        "display_name": text(AccountRow.display_name),
        "create_time": time(AccountRow.create_time),
        "update_time": time(AccountRow.update_time),
        "account_type": enum(AccountRow.account_type, ACCOUNT_TYPES),
        "email": text(AccountRow.email),
        **state_fields(AccountRow, STATES[1:]),
        "suspend_state": enum(AccountRow.suspend_state, SUSPEND_STATES),
    },
)
