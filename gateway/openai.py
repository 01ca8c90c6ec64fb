"""The inference endpoints: chat/completions, completions and models."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from controlplane.checks.tool_calls import CallForm
from gateway.answers import MalformedAnswer, Shaper
from gateway.dialect import EngineRequest, translate_chat, translate_completion
from gateway.engines import EngineDied, read_events
from gateway.errors import GatewayError, invalid, model_not_found, unavailable
from gateway.gateway import Gateway
from gateway.incoming import Incoming, read_headers, read_json
from gateway.keys import KnownKey
from gateway.limits import Limits
from gateway.metering import RANDOM, Tokens
from gateway.passage import Passage, is_plain
from gateway.resolver import reachable_models, resolve
from gateway.snapshot import Route, Snapshot
from gateway.sse import encode_done, encode_events
from gateway.tools.answers import WrongCall

Headers = list[tuple[bytes, bytes]]

CLIENT_GONE = 499
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
KEEP_ALIVE = b": waiting for a replica\n\n"
NO_CHAT = "model is missing conversation_config, please use /completions API instead"


@dataclass(frozen=True)
class Kind:
    """One of the two ways to ask for text."""

    endpoint: str
    translate: Callable[[dict[str, Any], int, str | None, CallForm], EngineRequest]
    needs_chat: bool


CHAT = Kind("chat/completions", translate_chat, needs_chat=True)
COMPLETION = Kind("completions", translate_completion, needs_chat=False)


@dataclass(frozen=True)
class Patience:
    """How long a request may wait for a first replica, and what it holds in memory meanwhile."""

    size: int
    seconds: float


class TextEndpoint:
    """An ASGI endpoint of its own, since it listens for the caller's leaving for as long as it answers."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"].state.gateway
        headers = read_headers(scope)
        key = await authenticate(gateway, scope, headers)
        with gateway.admission.enter(key.account_id) as place:
            incoming = Incoming(receive, gateway.loop)
            sent = await read_json(incoming, headers, gateway.limits, place.hold)
            if isolation := headers.get("x-prompt-cache-isolation-key"):
                sent.setdefault("prompt_cache_isolation_key", isolation)
            exchange = Exchange(gateway, self._kind, key, find_route(gateway, key, sent.get("model")))
            scope["notes"]["model"] = exchange.route.model.name
            request = exchange.translate(sent)
            await gateway.admit(key.account_id, exchange.route)
            patience = Patience(incoming.size, read_patience(headers, gateway.limits))
            await incoming.until_gone(exchange.run(request, send, patience))


class Exchange:
    """One request to a deployed model, from its translation to its row of usage."""

    def __init__(self, gateway: Gateway, kind: Kind, key: KnownKey, route: Route) -> None:
        self.route = route
        self._gateway = gateway
        self._kind = kind
        self._key = key
        self._id = f"{RANDOM.getrandbits(128):032x}"
        self._tokens = Tokens()
        self._started = time.monotonic()
        self._has_begun = False
        """Whether the head of the answer has been sent."""

    def translate(self, sent: dict[str, Any]) -> EngineRequest:
        if self._kind.needs_chat and not self.route.model.supports_chat:
            raise GatewayError(404, "NOT_FOUND", NO_CHAT, param="model")
        # A visitor's prompts are cached apart, so that hits and their timing tell nothing of other accounts.
        owner = self.route.deployment.account_id
        scope = None if owner == self._key.account_id else self._key.account_id
        model, deployment = self.route.model, self.route.deployment
        return self._kind.translate(sent, deployment.context_length, scope, model.call_form)

    async def run(self, request: EngineRequest, send: Send, patience: Patience) -> None:
        """Answer, and record what it took, however it ends."""
        self._tokens.choices_per_prompt = request.body.get("n", 1)
        in_flight, deployment = self._gateway.telemetry.in_flight, self.route.deployment
        in_flight[deployment.name] += 1
        self._gateway.load.begin(deployment.uid)
        status = CLIENT_GONE
        try:
            await self._wait_for_replica(request, send, patience)
            status = await self._answer(request, send)
        except GatewayError as error:
            status = error.status
            if not self._has_begun:
                raise
            await _send_body(send, encode_events([error.body]), more=False)
        finally:
            in_flight[deployment.name] -= 1
            self._gateway.load.end(deployment.uid, self._tokens.prompt, self._tokens.completion)
            self._record(status, request.stream)

    async def _wait_for_replica(self, request: EngineRequest, send: Send, patience: Patience) -> None:
        async def sign_of_life() -> None:
            if request.stream:
                await self._begin_stream(request.headers, send)
                await _send_body(send, KEEP_ALIVE)

        self.route = await self._gateway.activator.until_ready(
            lambda: same_route(self._gateway, self.route),
            lambda route: no_replica(route, self._key),
            size=patience.size,
            seconds=patience.seconds,
            meanwhile=sign_of_life,
        )

    async def _answer(self, request: EngineRequest, send: Send) -> int:
        shaper = Shaper(
            self.route.model.name,
            self._tokens,
            include_usage=request.include_usage,
            legacy_logprobs=request.legacy_logprobs,
            calls=request.calls,
        )
        engines = self._gateway.engines
        async with engines.ask(self.route, self._kind.endpoint, request, self._id) as answer:
            elapsed = time.monotonic() - self._started
            self._gateway.telemetry.see_first_byte(self._kind.endpoint, elapsed)
            if answer.parts is not None:
                passage = Passage(self.route.model.name, self._tokens) if is_plain(request) else None
                return await self._stream(answer.parts, shaper, passage, request.headers, send)
            return await self._whole(answer.whole, shaper, request.headers, send)

    async def _whole(self, answer: dict[str, Any], shaper: Shaper, more: Headers, send: Send) -> int:
        try:
            content = msgspec.json.encode(shaper.whole(answer))
        except MalformedAnswer:
            raise GatewayError(502, "BAD_GATEWAY", "the model's engine failed to answer") from None
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", self._id.encode()),
            (b"fireworks-prompt-tokens", str(self._tokens.prompt).encode()),
            (b"fireworks-cached-prompt-tokens", str(self._tokens.cached).encode()),
            *more,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return 200

    async def _stream(
        self,
        parts: AsyncIterator[bytes],
        shaper: Shaper,
        passage: Passage | None,
        more: Headers,
        send: Send,
    ) -> int:
        """Relay the events as they come. What goes wrong from here on is told in an event of its own."""
        await self._begin_stream(more, send)
        try:
            async for part in parts:
                passed, rest = passage.take(part) if passage else (b"", part)
                await self._send_events(passed, read_events(rest) if rest else [], shaper, send)
            status, ending = 200, encode_events(shaper.end()) + encode_done()
        except WrongCall as error:
            status, ending = error.status, encode_events([error.body])
        except (EngineDied, MalformedAnswer, GatewayError):
            broken = GatewayError(
                502, "BAD_GATEWAY", "the model's engine stopped in the middle of its answer"
            )
            status, ending = broken.status, encode_events([broken.body])
        await _send_body(send, ending, more=False)
        return status

    async def _begin_stream(self, more: Headers, send: Send) -> None:
        """Send the head, unless that has been done to keep the connection open."""
        if self._has_begun:
            return
        self._has_begun = True
        headers = [EVENT_STREAM, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *more]
        headers.append((b"x-request-id", self._id.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send_events(
        self, passed: bytes, events: list[dict[str, Any]], shaper: Shaper, send: Send
    ) -> None:
        """What came together leaves together; what came before an engine's error leaves before it."""
        good = list(itertools.takewhile(lambda event: "error" not in event, events))
        shaped: list[dict[str, Any]] = []
        try:
            for event in good:
                shaped += shaper.chunk(event)
        finally:
            if chunks := passed + encode_events(shaped):
                await _send_body(send, chunks)
        if len(good) < len(events):
            raise EngineDied("the engine reported an error")

    def _record(self, status: int, streamed: bool) -> None:
        self._gateway.meter.record(
            {
                "account_id": self._key.account_id,
                "owner_id": self.route.deployment.account_id,
                "user_id": self._key.user_id,
                "key_id": self._key.key_id,
                "model": self.route.model.name,
                "deployment": self.route.deployment.name,
                "endpoint": self._kind.endpoint,
                "http_status": status,
                "prompt_tokens": self._tokens.prompt,
                "cached_prompt_tokens": self._tokens.cached,
                "completion_tokens": self._tokens.completion,
                "streamed": streamed,
                "duration_ms": round((time.monotonic() - self._started) * 1000),
            }
        )


async def _send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def read_patience(headers: Mapping[str, str], limits: Limits) -> float:
    """Seconds, of the header `x-wait-for-replica`; the gateway's own limit without it."""
    given = headers.get("x-wait-for-replica")
    if given is None:
        return limits.wait_seconds
    if not (given.isascii() and given.isdigit()):
        raise invalid("the header x-wait-for-replica must be a whole number of seconds")
    return min(float(given), limits.wait_seconds)


async def authenticate(gateway: Gateway, scope: Scope, headers: Mapping[str, str]) -> KnownKey:
    """The key of a caller who may run inference."""
    key = await gateway.keys.authorise(headers)
    gateway.meter.note_use(key.uid)
    scope["notes"]["account"] = key.account_id
    return key


def current_snapshot(gateway: Gateway) -> Snapshot:
    if gateway.snapshot is None:
        raise unavailable("UNAVAILABLE", "the gateway is starting; try again")
    return gateway.snapshot


def find_route(gateway: Gateway, key: KnownKey, identifier: object) -> Route:
    if identifier is None:
        raise invalid("'model' is required", "model")
    if not isinstance(identifier, str) or not identifier:
        raise invalid("'model' must be a non-empty string", "model")
    platform = gateway.settings.platform_account
    route = resolve(current_snapshot(gateway), key.account_id, platform, identifier)
    if route is None:
        raise model_not_found()
    return route


def same_route(gateway: Gateway, route: Route) -> Route:
    """The route as it is now; 404 when it is gone."""
    now = current_snapshot(gateway).by_deployed_model.get((route.account_id, route.id))
    if now is None or now.deployment.uid != route.deployment.uid:
        raise model_not_found()
    return now


def no_replica(route: Route, key: KnownKey) -> GatewayError:
    """Why no replica can take the request; the owner is told what the deployment waits for."""
    deployment = route.deployment
    own = key.account_id == deployment.account_id
    if route.state == "DEPLOYING" and route.status_code != "OK" and deployment.ready_replicas:
        reason = f": {route.status_message}" if own and route.status_message else ""
        return GatewayError(
            412, "FAILED_PRECONDITION", f"the model could not be loaded{reason}", param="model"
        )
    name = f"deployment {deployment.name}" if own else "the model's deployment"
    failed = "has failed and " if deployment.state == "FAILED" else ""
    reason = f": {deployment.status_message}" if own and deployment.status_message else ""
    message = f"{name} {failed}has no ready replica for the model{reason}"
    return unavailable("DEPLOYMENT_SCALING_UP", message, retry_after=5)


async def list_models(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    key = await authenticate(gateway, request.scope, request.headers)
    routes = reachable_models(current_snapshot(gateway), key.account_id)
    return JSONResponse({"object": "list", "data": [model_card(route) for route in routes]})


async def get_model(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    key = await authenticate(gateway, request.scope, request.headers)
    return JSONResponse(model_card(find_route(gateway, key, request.path_params["model"])))


def model_card(route: Route) -> dict[str, Any]:
    model = route.model
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.create_time.timestamp()),
        "owned_by": model.account_id,
        "kind": model.kind,
        "supports_chat": model.supports_chat,
        "supports_image_input": model.supports_image_input,
        "supports_tools": model.supports_tools,
        "context_length": model.context_length,
    }
