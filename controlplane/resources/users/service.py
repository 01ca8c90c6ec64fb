from __future__ import annotations

import re

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import failed_precondition, invalid
from controlplane.names import ResourceName, check_id, id_from_email
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.users.schemas import ROLES, User
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import find, insert
from controlplane.rest.masks import changes

EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
SPINE_ROLES = ("admin", "user")


async def create_user(session: AsyncSession, account_id: str, user_id: str, body: User) -> UserRow:
    """A new user of the account; the id comes from the e-mail address when none is given."""
    given = body.given()
    email = given.get("email", "")
    if not EMAIL.fullmatch(email):
        raise invalid(f"email {email!r} is not an e-mail address", "email")
    row = UserRow(
        account_id=account_id,
        id=check_id(user_id or id_from_email(email), "userId"),
        email=email,
        role=checked_role(given.get("role") or "user"),
        display_name=given.get("display_name", ""),
        service_account=given.get("service_account", False),
        state="READY",
    )
    await insert(session, row, f"accounts/{account_id}/users/{row.id} or another user with e-mail {email}")
    return row


async def update_user(session: AsyncSession, name: ResourceName, body: User, mask: str) -> UserRow:
    await one_at_a_time(session, name.account_id)
    row = await find(session, UserRow, name, lock=True)
    changed = changes(session, body, mask, User.of(row))
    for fixed in ("email", "service_account"):
        if fixed in changed:
            raise invalid(f"{fixed} cannot be changed", fixed)
    if "role" in changed:
        if row.role == "admin" and changed["role"] != "admin":
            await keep_an_admin(session, row)
        row.role = checked_role(changed["role"])
    row.display_name = changed.get("display_name", row.display_name)
    return row


async def delete_user(session: AsyncSession, name: ResourceName) -> None:
    await one_at_a_time(session, name.account_id)
    row = await find(session, UserRow, name, lock=True)
    if row.role == "admin":
        await keep_an_admin(session, row)
    await session.delete(row)


async def one_at_a_time(session: AsyncSession, account_id: str) -> None:
    """Hold the account until the transaction ends, or two admins could each make the other the last to go."""
    query = select(AccountRow.id).where(AccountRow.id == account_id)
    await session.execute(query.with_for_update(key_share=True))


async def keep_an_admin(session: AsyncSession, leaving: UserRow) -> None:
    """Refuse to lose the account's last admin: nobody could let anybody in again."""
    others = await session.scalar(
        select(func.count())
        .select_from(UserRow)
        .where(UserRow.account_id == leaving.account_id, UserRow.role == "admin", UserRow.uid != leaving.uid)
    )
    if not others:
        raise failed_precondition(f"{leaving.id} is the last admin of accounts/{leaving.account_id}")


def checked_role(role: str) -> str:
    if role in SPINE_ROLES:
        return role
    if role in ROLES:
        raise invalid(f"role {role!r} is not supported yet; use admin or user", "role")
    raise invalid(f"role {role!r} is none of {', '.join(ROLES)}", "role")
