"""Signing in by a code that is typed into a browser somewhere else."""

from __future__ import annotations

import secrets
from datetime import timedelta

from controlplane.auth import Call, hash_key
from controlplane.context import Context
from controlplane.db import now
from controlplane.encryption import Cipher
from controlplane.errors import invalid, unimplemented
from controlplane.rest.access import insert
from controlplane.signin import pending
from controlplane.signin.client import Client, Refusal, Tokens
from controlplane.signin.providers import choose_provider, client_of, current_provider, failures_told
from controlplane.signin.schemas import PollDeviceResponse, StartDeviceRequest, StartDeviceResponse
from controlplane.signin.service import BEGIN_AGAIN, sign_in
from controlplane.signin.tables import SignInRow

SLOWER_BY = 5
"""Seconds that RFC 8628 adds when the provider says slow_down."""


async def start_device(ctx: Context, body: StartDeviceRequest, address: str) -> StartDeviceResponse:
    async with ctx.db.session() as session:
        provider = await choose_provider(session, body.account, body.identity_provider)
        await pending.make_room(session, provider.uid, address)
    with failures_told(provider):
        client = await client_of(ctx, provider)
        if not client.metadata.device_endpoint:
            raise unimplemented(
                "the identity provider has no device codes (device_authorization_endpoint); use a browser"
            )
        begun = await client.start_device()
    device_code = secrets.token_urlsafe(32)
    row = SignInRow(
        provider_uid=provider.uid,
        handle_hash=hash_key(device_code),
        client_address=address,
        expire_time=now() + timedelta(seconds=begun.expires_in),
        device_code=Cipher.from_settings(ctx.settings).encrypt(begun.device_code),
        interval=begun.interval,
    )
    async with ctx.db.session() as session:
        await insert(session, row, "the sign-in")
    return StartDeviceResponse(
        device_code=device_code,
        user_code=begun.user_code,
        verification_uri=begun.verification_uri,
        verification_uri_complete=begun.verification_uri_complete,
        expires_in=begun.expires_in,
        interval=begun.interval,
    )


async def poll_device(ctx: Context, device_code: str, call: Call) -> PollDeviceResponse:
    async with ctx.db.session() as session:
        row, is_due = await pending.due_poll(session, device_code)
    if row is None:
        raise invalid(BEGIN_AGAIN, "deviceCode")
    if not is_due:  # the caller is early: the provider need not hear of it
        return PollDeviceResponse(interval=row.interval)
    async with ctx.db.session() as session:
        provider = await current_provider(session, row.provider_uid)
    with failures_told(provider):
        client = await client_of(ctx, provider)
        tokens = await _ask(ctx, client, row)
        if tokens is None:
            return PollDeviceResponse(interval=row.interval)
        await _end_once(ctx, row)
        person = await client.person(tokens)
    async with ctx.db.session() as session:
        signed_in = await sign_in(ctx, session, provider, person, tokens, call)
    return PollDeviceResponse(state="SIGNED_IN", tokens=signed_in)


async def _ask(ctx: Context, client: Client, row: SignInRow) -> Tokens | None:
    """The provider's tokens; None while the person has not decided, and then not sooner than it wishes."""
    try:
        return await client.poll_device(Cipher.from_settings(ctx.settings).decrypt(row.device_code))
    except Refusal as error:
        if error.code == "authorization_pending":
            return None
        if error.code == "slow_down":
            async with ctx.db.session() as session:
                row.interval = await pending.slow_down(session, row.uid, SLOWER_BY)
            return None
        await _end_once(ctx, row)
        raise


async def _end_once(ctx: Context, row: SignInRow) -> None:
    async with ctx.db.session() as session:
        if not await pending.end(session, row.uid):
            raise invalid(BEGIN_AGAIN, "deviceCode")
