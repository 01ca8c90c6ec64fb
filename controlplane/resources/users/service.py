from __future__ import annotations

import re

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import failed_precondition, invalid
from controlplane.names import ResourceName, check_id, generate_id, id_from_email
from controlplane.permissions import ADMIN, ROLES, USER
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.users.schemas import User
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import CREATED, find, insert
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes, refuse_fixed

IGNORED = ("first_name", "last_name", "stated_role")
EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


async def create_user(
    session: AsyncSession, account_id: str, user_id: str, body: User, platform: str
) -> UserRow:
    """A new user of the account; the id comes from the e-mail address when none is given.

    A service account needs no address: without one it gets `{id}@{account}.sa.{platform}`, where no mail
    arrives.
    """
    given = body.given()
    is_service = given.get("service_account", False)
    email = given.get("email", "")
    if email or not is_service:
        check_email(email)
    chosen_id = check_id(user_id, "userId") if user_id else await free_id(session, account_id, email)
    row = UserRow(
        account_id=account_id,
        id=chosen_id,
        email=email or f"{chosen_id}@{account_id}.sa.{platform}",
        role=checked_role(given.get("role") or USER),
        display_name=given.get("display_name", ""),
        service_account=is_service,
        state="READY",
    )
    name = session.info[CREATED] = str(ResourceName(account_id, "users", row.id))
    await insert(session, row, f"{name} or another user with e-mail {row.email}")
    return row


async def free_id(session: AsyncSession, account_id: str, email: str) -> str:
    """The id that an address suggests, with something random behind it when another user has that."""
    suggested = id_from_email(email) if email else f"sa-{generate_id(8)}"
    taken = select(UserRow.uid).where(UserRow.account_id == account_id, UserRow.id == suggested)
    return f"{suggested}-{generate_id(6)}" if await session.scalar(taken) else suggested


async def update_user(session: AsyncSession, name: ResourceName, body: User, mask: str) -> UserRow:
    """Change the role and the display name; nothing else of a user changes."""
    await one_at_a_time(session, name.account_id)
    row = await find(session, UserRow, name, lock=True)
    changed = changes(session, body, mask, User.of(row))
    refuse_fixed(changed, ("role", "display_name", *IGNORED), "a user")
    if "role" in changed:
        role = checked_role(changed["role"])
        if row.role == ADMIN and role != ADMIN:
            await keep_an_admin(session, row)
        row.role = role
    row.display_name = changed.get("display_name", row.display_name)
    return row


async def delete_user(session: AsyncSession, name: ResourceName) -> None:
    await one_at_a_time(session, name.account_id)
    row = await find(session, UserRow, name, lock=True)
    refuse_other_version(session, User.of(row))
    if row.role == ADMIN:
        await keep_an_admin(session, row)
    await session.delete(row)


async def one_at_a_time(session: AsyncSession, account_id: str) -> None:
    """Hold the account until the transaction ends, or two admins could each make the other the last to go."""
    query = select(AccountRow.id).where(AccountRow.id == account_id)
    await session.execute(query.with_for_update(key_share=True))


async def keep_an_admin(session: AsyncSession, leaving: UserRow) -> None:
    """Refuse to lose the last person who is an admin: nobody could let anybody in again.

    Service accounts do not count: their keys are made by admins.
    """
    others = await session.scalar(
        select(func.count())
        .select_from(UserRow)
        .where(
            UserRow.account_id == leaving.account_id,
            UserRow.role == ADMIN,
            UserRow.uid != leaving.uid,
            UserRow.service_account.is_(False),
        )
    )
    if not others:
        raise failed_precondition(f"{leaving.id} is the last admin of accounts/{leaving.account_id}")


def checked_role(role: str) -> str:
    if role in ROLES:
        return role
    if role == "custom":
        raise invalid("role custom is not supported: roles here have fixed permissions", "role")
    raise invalid(f"role {role!r} is none of {', '.join(ROLES)}", "role")


def check_email(email: str) -> None:
    if not EMAIL.fullmatch(email):
        raise invalid(f"email {email!r} is not an e-mail address", "email")
