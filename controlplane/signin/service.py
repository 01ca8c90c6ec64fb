"""The steps of signing in. What is read from the provider is read outside of any transaction."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Call, Caller, hash_key
from controlplane.context import Context
from controlplane.db import now
from controlplane.encryption import Cipher
from controlplane.errors import invalid, permission_denied
from controlplane.resources.audit_logs.service import record
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.rest.access import CALLER, CREATED, insert
from controlplane.signin import pending, people, sessions
from controlplane.signin.client import Person, Tokens
from controlplane.signin.providers import choose_provider, client_of, current_provider, failures_told
from controlplane.signin.schemas import FinishSignInRequest, SignedIn, StartSignInRequest, StartSignInResponse
from controlplane.signin.tables import SignInRow

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CODE_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
CODE_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
BEGIN_AGAIN = "this sign-in is not known, finished already, or too old; begin again"


async def start_sign_in(ctx: Context, body: StartSignInRequest, address: str) -> StartSignInResponse:
    check_redirect(body.redirect_uri)
    if not CODE_CHALLENGE.fullmatch(body.code_challenge):
        raise invalid("codeChallenge must be the S256 challenge of a PKCE verifier", "codeChallenge")
    async with ctx.db.session() as session:
        provider = await choose_provider(session, body.account, body.identity_provider)
        await pending.make_room(session, provider.uid, address)
    with failures_told(provider):
        client = await client_of(ctx, provider)
    state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    row = SignInRow(
        provider_uid=provider.uid,
        handle_hash=hash_key(state),
        client_address=address,
        expire_time=now() + pending.BROWSER_TIME,
        redirect_uri=body.redirect_uri,
        code_challenge=body.code_challenge,
        nonce=nonce,
    )
    async with ctx.db.session() as session:
        await insert(session, row, "the sign-in")
    url = client.authorization_url(body.redirect_uri, state, nonce, body.code_challenge)
    return StartSignInResponse(authorization_url=url, state=state, expire_time=row.expire_time)


async def finish_sign_in(ctx: Context, body: FinishSignInRequest, call: Call) -> SignedIn:
    """One try for each sign-in: whatever is wrong with this one, the next has to begin anew."""
    async with ctx.db.session() as session:
        row = await pending.take(session, body.state.get_secret_value())
    if row is None:
        raise invalid(BEGIN_AGAIN, "state")
    verifier = body.code_verifier.get_secret_value()
    if not CODE_VERIFIER.fullmatch(verifier) or not hmac.compare_digest(
        challenge_of(verifier), row.code_challenge
    ):
        raise invalid("codeVerifier does not belong to this sign-in; begin again", "codeVerifier")
    async with ctx.db.session() as session:
        provider = await current_provider(session, row.provider_uid)
    with failures_told(provider):
        client = await client_of(ctx, provider)
        tokens = await client.exchange(body.code.get_secret_value(), verifier, row.redirect_uri)
        person = await client.person(tokens, nonce=row.nonce)
    async with ctx.db.session() as session:
        return await sign_in(ctx, session, provider, person, tokens, call)


async def sign_in(
    ctx: Context,
    session: AsyncSession,
    asked: IdentityProviderRow,
    person: Person,
    tokens: Tokens,
    call: Call,
) -> SignedIn:
    """The end of every sign-in: the person is who they say, as the provider says that was asked."""
    provider = await current_provider(session, asked.uid)
    if (provider.issuer_url, provider.client_id) != (asked.issuer_url, asked.client_id):
        raise permission_denied("the identity provider was changed meanwhile; begin again")
    user = await people.user_of(session, provider, person)
    kept = Cipher.from_settings(ctx.settings).encrypt(tokens.refresh_token) if tokens.refresh_token else ""
    issued = await sessions.begin(session, user, provider.uid, person.subject, kept)
    key = issued.key
    session.info[CREATED] = f"accounts/{user.account_id}/users/{user.id}"
    session.info[CALLER] = Caller(
        user.account_id, user.id, user.role, key.uid, key.key_id, user.email, call=call
    )
    record(session)
    return SignedIn.of(issued, user)


def check_redirect(uri: str) -> None:
    """Codes are sent to programs on the person's own machine, and nowhere else."""
    problem = invalid(
        "redirectUri must be http://127.0.0.1:PORT/, http://[::1]:PORT/ or http://localhost:PORT/",
        "redirectUri",
    )
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme != "http" or parts.hostname not in LOOPBACK or not port:
        raise problem
    if "@" in parts.netloc or parts.query or parts.fragment or not uri.isascii() or not uri.isprintable():
        raise problem


def challenge_of(verifier: str) -> str:
    """S256 of PKCE."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
