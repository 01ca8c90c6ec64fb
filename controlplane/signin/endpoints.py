"""Endpoints for people who have no key yet: what they bring is a code, or a refresh token."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Request, Response

from controlplane.context import ContextDep, call_of
from controlplane.rest.responses import reply
from controlplane.rest.router import collection_router
from controlplane.rest.schema import ApiModel, Empty
from controlplane.signin import device, renewal, service
from controlplane.signin.schemas import (
    FinishSignInRequest,
    PollDeviceRequest,
    PollDeviceResponse,
    RefreshRequest,
    SignedIn,
    SignOutRequest,
    StartDeviceRequest,
    StartDeviceResponse,
    StartSignInRequest,
    StartSignInResponse,
)

router = collection_router("auth", "/v1/auth")


@router.post("/signIn:start", response_model=StartSignInResponse, summary="Begin to sign in in a browser")
async def start_sign_in(
    ctx: ContextDep, request: Request, body: Annotated[StartSignInRequest, Body()]
) -> Response:
    return reply(await service.start_sign_in(ctx, body, call_of(request).client_address))


@router.post("/signIn:finish", response_model=SignedIn, summary="Trade the browser's code for tokens")
async def finish_sign_in(
    ctx: ContextDep, request: Request, body: Annotated[FinishSignInRequest, Body()]
) -> Response:
    return not_kept(await service.finish_sign_in(ctx, body, call_of(request)))


@router.post("/device:start", response_model=StartDeviceResponse, summary="Begin to sign in by device code")
async def start_device_sign_in(
    ctx: ContextDep, request: Request, body: Annotated[StartDeviceRequest, Body()]
) -> Response:
    return reply(await device.start_device(ctx, body, call_of(request).client_address))


@router.post(
    "/device:poll", response_model=PollDeviceResponse, summary="Ask whether a device code was confirmed"
)
async def poll_device_sign_in(
    ctx: ContextDep, request: Request, body: Annotated[PollDeviceRequest, Body()]
) -> Response:
    return not_kept(await device.poll_device(ctx, body.device_code.get_secret_value(), call_of(request)))


@router.post("/refresh", response_model=SignedIn, summary="Trade a refresh token for new tokens")
async def refresh_tokens(ctx: ContextDep, body: Annotated[RefreshRequest, Body()]) -> Response:
    return not_kept(await renewal.refresh(ctx, body.refresh_token.get_secret_value()))


@router.post("/signOut", response_model=Empty, summary="End the session of a refresh token")
async def sign_out(ctx: ContextDep, request: Request, body: Annotated[SignOutRequest, Body()]) -> Response:
    await renewal.sign_out(ctx, body.refresh_token.get_secret_value(), call_of(request))
    return reply(Empty())


def not_kept(message: ApiModel) -> Response:
    """An answer with tokens in it, which no cache may keep."""
    answer = reply(message)
    answer.headers["Cache-Control"] = "no-store"
    return answer
