"""What becomes of a session: renewed after the provider was asked again, or ended."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Call, Caller, hash_key, unauthenticated
from controlplane.context import Context
from controlplane.db import now
from controlplane.encryption import Cipher
from controlplane.errors import ApiError
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.audit_logs.service import record
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.resources.users.tables import UserRow
from controlplane.rest.access import CALLER
from controlplane.signin import sessions
from controlplane.signin.client import Refusal
from controlplane.signin.id_tokens import Untrusted
from controlplane.signin.providers import client_of, failures_told
from controlplane.signin.schemas import SignedIn
from controlplane.signin.tables import UserSessionRow

OVER = "you are signed out; sign in again"
SPENT = "this refresh token was used before, so that the session has been ended; sign in again"


@dataclass(frozen=True)
class Found:
    """A session whose newest refresh token somebody came with."""

    row: UserSessionRow
    user: UserRow
    provider: IdentityProviderRow


async def refresh(ctx: Context, token: str) -> SignedIn:
    """New tokens, or 401 when the session is over. A provider that is away ends nothing: 503."""
    family, secret = sessions.split_refresh_token(token)
    async with ctx.db.session() as session:
        found = await _find(session, family, secret)
    if isinstance(found, ApiError):
        raise found
    kept: str | None = found.row.provider_refresh_token
    if kept:
        with failures_told(found.provider):
            kept = await _ask_provider(ctx, found, kept)
    if kept is None:
        async with ctx.db.session() as session:
            await sessions.end(session, found.row.uid)
        raise unauthenticated(f"the identity provider no longer lets you in; {OVER}")
    async with ctx.db.session() as session:
        # Somebody may have come with the same token in the meantime.
        again = await _find(session, family, secret)
        if isinstance(again, Found):
            return SignedIn.of(await sessions.rotate(session, again.row, family, kept), again.user)
    raise again


async def sign_out(ctx: Context, token: str, call: Call) -> None:
    """End the session that a refresh token, the newest or an old one, belongs to, if it is there."""
    family, _ = sessions.split_refresh_token(token)
    async with ctx.db.session() as session:
        query = _sessions().where(UserSessionRow.family_hash == hash_key(family))
        found = (await session.execute(query)).one_or_none()
        if found is None:
            return
        row, user, _ = found
        session.info[CALLER] = Caller(user.account_id, user.id, user.role, row.uid, "", user.email, call=call)
        await sessions.end(session, row.uid)
        record(session)


async def _find(session: AsyncSession, family: str, secret: str) -> Found | ApiError:
    """The session, held for the transaction; or the error, to be raised when what it ended is committed."""
    # The user first: who deletes a user comes to the sessions last.
    of_session = UserRow.uid == UserSessionRow.user_uid
    user_of = (
        select(UserRow.uid)
        .join(UserSessionRow, of_session)
        .where(UserSessionRow.family_hash == hash_key(family))
    )
    await session.execute(user_of.with_for_update(read=True, key_share=True, of=UserRow))
    query = _sessions().where(UserSessionRow.family_hash == hash_key(family), AccountRow.state == "READY")
    found = (await session.execute(query.with_for_update(of=UserSessionRow))).one_or_none()
    if found is None:
        return unauthenticated(OVER)
    row, user, provider = found
    if row.refresh_hash != hash_key(secret):
        await sessions.end(session, row.uid)
        return unauthenticated(SPENT)
    if row.expire_time <= now() or user.state != "READY" or provider.disabled:
        await sessions.end(session, row.uid)
        return unauthenticated(OVER)
    return Found(row, user, provider)


def _sessions() -> Select[UserSessionRow, UserRow, IdentityProviderRow]:
    return (
        select(UserSessionRow, UserRow, IdentityProviderRow)
        .join(UserRow, UserRow.uid == UserSessionRow.user_uid)
        .join(IdentityProviderRow, IdentityProviderRow.uid == UserSessionRow.provider_uid)
        .join(AccountRow, AccountRow.id == UserSessionRow.account_id)
    )


async def _ask_provider(ctx: Context, found: Found, kept: str) -> str | None:
    """The provider's refresh token from now on, encrypted; None when it does not let the user in any more."""
    cipher = Cipher.from_settings(ctx.settings)
    client = await client_of(ctx, found.provider)
    await ctx.issuers.keys(client.metadata)  # first: the token may be spent once it is sent
    try:
        tokens = await client.refresh(cipher.decrypt(kept))
    except Refusal as error:
        if error.code in ("invalid_grant", "access_denied"):
            return None
        raise
    if tokens.id_token and (await client.claims(tokens))["sub"] != found.row.subject:
        raise Untrusted("it speaks of somebody else")
    return cipher.encrypt(tokens.refresh_token) if tokens.refresh_token else kept
