"""The provider that a sign-in goes through, and what to say when it fails."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.context import Context
from controlplane.encryption import Cipher
from controlplane.errors import ApiError, Code, failed_precondition, invalid, permission_denied
from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.signin.client import Client, Refusal
from controlplane.signin.id_tokens import Untrusted
from controlplane.signin.outbound import NoAnswer


async def choose_provider(session: AsyncSession, account: str, provider: str) -> IdentityProviderRow:
    """The provider that people of the account sign in with.

    Nobody is known yet, so that an account without one is told from one that does not exist by nothing.
    """
    account_id = account.removeprefix("accounts/")
    query = (
        select(IdentityProviderRow)
        .join(AccountRow, AccountRow.id == IdentityProviderRow.account_id)
        .where(
            IdentityProviderRow.account_id == account_id,
            IdentityProviderRow.disabled.is_(False),
            AccountRow.state == "READY",
        )
    )
    if provider:
        query = query.where(IdentityProviderRow.id == provider.rpartition("/")[2])
    found = (await session.scalars(query.limit(2))).all()
    if not found:
        raise ApiError(
            Code.NOT_FOUND, "there is no such account, or no identity provider to sign in to it with"
        )
    if len(found) > 1:
        raise invalid("the account has several identity providers: name one", "identityProvider")
    return found[0]


async def current_provider(session: AsyncSession, uid: uuid.UUID) -> IdentityProviderRow:
    """The provider, held as it is until the transaction ends; 403 when it is there no more."""
    query = select(IdentityProviderRow).where(IdentityProviderRow.uid == uid)
    row: IdentityProviderRow | None = await session.scalar(query.with_for_update(read=True))
    if row is None or row.disabled:
        raise permission_denied("the identity provider was switched off meanwhile; ask an admin")
    return row


async def client_of(ctx: Context, row: IdentityProviderRow) -> Client:
    secret = Cipher.from_settings(ctx.settings).decrypt(row.client_secret)
    return Client(ctx.issuers, await ctx.issuers.metadata(row.issuer_url), row.client_id, secret)


@contextmanager
def failures_told(row: IdentityProviderRow) -> Iterator[None]:
    """What goes wrong at the provider, as an error for the person who signs in."""
    name = f"accounts/{row.account_id}/identityProviders/{row.id}"
    try:
        yield
    except NoAnswer as error:
        text = f"the identity provider cannot be used now: {error}"
        raise ApiError(Code.UNAVAILABLE, text, headers={"Retry-After": "5"}) from None
    except Untrusted as error:
        raise permission_denied(f"the identity provider's ID token is not accepted: {error}") from None
    except Refusal as error:
        raise _refused(error.code, name) from None


def _refused(code: str, name: str) -> ApiError:
    if code == "invalid_client":
        return failed_precondition(
            f"the identity provider does not know Hearth ({code}): an admin has to correct the client id or "
            f"secret of {name}"
        )
    if code == "access_denied":
        return permission_denied("the identity provider did not let you in (access_denied)")
    if code in ("invalid_grant", "expired_token"):
        return invalid(f"the identity provider does not take this code, or no longer ({code}); begin again")
    return failed_precondition(
        f"the identity provider refuses the sign-in ({code}); an admin has to look at {name}"
    )
