"""Which user somebody is: bound to the provider's subject, found by e-mail, or made just in time."""

from __future__ import annotations

import re

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import ApiError, permission_denied
from controlplane.names import generate_id, id_from_email
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import insert
from controlplane.signin.client import Person
from controlplane.signin.tables import UserIdentityRow

# Two letters are no ASCII ones and become some in lower case, whose address is somebody else's: Kelvin and İ.
EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f\u212a\u0130]{1,190}@[^@\s\x00-\x1f\x7f\u212a\u0130]{1,253}")
LONGEST_SUBJECT = 255
"""Characters that OpenID Connect allows."""
LONGEST_DISPLAY_NAME = 63


async def user_of(session: AsyncSession, provider: IdentityProviderRow, person: Person) -> UserRow:
    """The user who signs in, or 403 that says what is missing."""
    check_person(provider, person)
    bound = await _user_bound_to(session, provider.account_id, person)
    user = bound or await _user_with_email(session, provider, person)
    if user is None:
        user = await _new_user(session, provider, person)
    if user.service_account or user.state != "READY":
        raise permission_denied(f"{user.email} cannot sign in: it is no person's account, or not ready")
    if bound is None:
        await _bind(session, user, person)
    return user


def check_person(provider: IdentityProviderRow, person: Person) -> None:
    if not EMAIL.fullmatch(person.email) or len(person.subject) > LONGEST_SUBJECT:
        raise permission_denied("the identity provider names no e-mail address; Hearth needs the claim email")
    if not person.email_verified:
        raise permission_denied(
            f"the identity provider has not verified {person.email} (the claim email_verified is not true)"
        )
    domain = person.email.rpartition("@")[2].lower()
    if domain not in provider.domain_names:
        raise permission_denied(
            f"{domain} is not a domain of this account's identity provider; "
            "ask an admin to add it to tenantDomains"
        )


async def _user_bound_to(session: AsyncSession, account_id: str, person: Person) -> UserRow | None:
    """The user, who is not deleted before the transaction ends."""
    found: UserRow | None = await session.scalar(
        select(UserRow)
        .join(UserIdentityRow, UserIdentityRow.user_uid == UserRow.uid)
        .where(
            UserIdentityRow.account_id == account_id,
            UserIdentityRow.issuer == person.issuer,
            UserIdentityRow.subject == person.subject,
        )
        .with_for_update(read=True, key_share=True, of=UserRow)
    )
    return found


async def _user_with_email(
    session: AsyncSession, provider: IdentityProviderRow, person: Person
) -> UserRow | None:
    user: UserRow | None = await session.scalar(
        select(UserRow)
        .where(UserRow.account_id == provider.account_id, func.lower(UserRow.email) == person.email.lower())
        .with_for_update(read=True, key_share=True)
    )
    if user is not None and await _is_bound(session, user, person.issuer):
        raise permission_denied(
            f"{person.email} has signed in before as somebody else at the identity provider; "
            "an admin can delete that user, so that the address starts anew"
        )
    return user


async def _is_bound(session: AsyncSession, user: UserRow, issuer: str) -> bool:
    query = select(UserIdentityRow.uid).where(
        UserIdentityRow.user_uid == user.uid, UserIdentityRow.issuer == issuer
    )
    return await session.scalar(query) is not None


async def _new_user(session: AsyncSession, provider: IdentityProviderRow, person: Person) -> UserRow:
    account_id = provider.account_id
    if not provider.enable_jit_user_provisioning:
        raise permission_denied(
            f"{person.email} is not a user of accounts/{account_id}; ask an admin to add it: "
            f"firectl create user --email {person.email}"
        )
    row = UserRow(
        account_id=account_id,
        id=await _free_id(session, account_id, person.email),
        email=person.email.lower(),
        role=provider.default_role,
        display_name=person.name[:LONGEST_DISPLAY_NAME],
        service_account=False,
        state="READY",
    )
    await insert(session, row, f"accounts/{account_id}/users/{row.id}")
    return row


async def _free_id(session: AsyncSession, account_id: str, email: str) -> str:
    """The id that the address suggests; with a tail when somebody else has it, such as `admin`."""
    wanted = id_from_email(email)
    query = select(UserRow.uid).where(UserRow.account_id == account_id, UserRow.id == wanted)
    return wanted if await session.scalar(query) is None else f"{wanted}-{generate_id(8)}"


async def _bind(session: AsyncSession, user: UserRow, person: Person) -> None:
    row = UserIdentityRow(
        account_id=user.account_id, user_uid=user.uid, issuer=person.issuer, subject=person.subject
    )
    try:
        await insert(session, row, f"a sign-in of {person.email}")
    except ApiError as error:
        raise ApiError(error.code, f"{person.email} signed in twice at the same time; try again") from None
