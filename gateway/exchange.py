"""One inference request, from its body to the last byte of its answer and its row of usage."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from controlplane.checks.architectures import GENERATE
from controlplane.checks.tool_calls import CallForm
from controlplane.observability.traces import Trace
from gateway.access import (
    authenticate,
    find_route,
    no_replica,
    other_task,
    read_patience,
    same_route,
)
from gateway.answers import MalformedAnswer
from gateway.dialect import EngineRequest, refuse_beside_guesses, write_by
from gateway.engines import BROKEN_OFF, Asking, EngineDied, NoneReached, read_events
from gateway.errors import GatewayError
from gateway.gateway import Gateway
from gateway.incoming import Incoming, read_headers, read_json
from gateway.key_limits import TOGETHER, counted_as
from gateway.keys import KnownKey
from gateway.media.parts import Part, media_of, require_pixels, require_taken, take_pixels
from gateway.metering import Tokens
from gateway.sending import BoundedSend
from gateway.snapshot import Route
from gateway.spans import engine_step, usage_of
from gateway.sse import EventParts
from gateway.tools.answers import WrongCall
from gateway.voices import Asked, Voice

Headers = list[tuple[bytes, bytes]]

CLIENT_GONE = 499
JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_CHAT = "model is missing conversation_config, please use /completions API instead"


@dataclass(frozen=True)
class Kind:
    """One of the ways to ask a model."""

    endpoint: str
    """Its path, and its name in the ledger."""
    translate: Callable[[dict[str, Any], int, str | None, CallForm], EngineRequest]
    voice: Callable[[Asked], Voice]
    engine_endpoint: str
    """Which of the engine's it is answered by."""
    needs_chat: bool = False
    task: str = GENERATE
    """What the model must be deployed for."""
    id_header: bytes = b"x-request-id"
    prepare: Callable[[Gateway, KnownKey, dict[str, Any], Callable[[int], None]], Awaitable[Kind]] | None = (
        None
    )
    """Finds what a request only refers to, and counts its bytes; the kind that knows it."""


class Patience(msgspec.Struct, frozen=True):
    """How long a request may wait for a first replica, and what it holds in memory meanwhile."""

    size: int
    seconds: float
    hold: Callable[[int], None]
    """Counts bytes that it comes to hold besides."""


class ModelEndpoint:
    """An ASGI endpoint of its own, since it listens for the caller's leaving for as long as it answers."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["gateway"]
        headers = read_headers(scope)
        trace: Trace = scope["trace"]
        key = await trace.within("authenticate", authenticate(gateway, scope, headers))
        with gateway.admission.enter(key.account_id, key.key_id, key.concurrent_requests) as place:
            incoming = Incoming(receive, gateway.timers)
            sent = await read_json(incoming, headers, gateway.limits, place.hold)
            isolation = headers.get("x-prompt-cache-isolation-key")
            if isolation and sent.get("prompt_cache_isolation_key") is None:
                sent["prompt_cache_isolation_key"] = isolation
            kind = self._kind
            route = await trace.within("resolve", find_route(gateway, key, sent.get("model")))
            scope["notes"]["model"] = route.model.name
            if kind.prepare is not None:
                kind = await kind.prepare(gateway, key, sent, place.hold)
            exchange = Exchange(gateway, kind, key, route, scope)
            request = exchange.translate(sent)
            told = await gateway.admit(key, exchange.route)
            session = headers.get("x-session-affinity") or request.session
            request = replace(request, session=session, headers=[*request.headers, *told])
            patience = Patience(place.size, read_patience(headers, gateway.limits), place.hold)
            sending = BoundedSend(send, gateway.timers, gateway.limits.send_seconds, incoming.give_up)
            try:
                await incoming.until_gone(exchange.run(sent, request, sending, patience))
            finally:
                sending.close()


class Exchange:
    """One request to a deployed model, from its translation to its row of usage."""

    def __init__(self, gateway: Gateway, kind: Kind, key: KnownKey, route: Route, scope: Scope) -> None:
        self.route = route
        self._gateway = gateway
        self._kind = kind
        self._key = key
        self._id: str = scope["unique_id"]
        self._request_id: str = scope["notes"]["request_id"]
        """The same, unless the caller has given the request an id, which need not be unique."""
        given = self._request_id != self._id
        self._engine_id = f"{self._request_id}-{self._id}" if given else self._id
        """Engines tell requests apart by their ids, so that a caller's is not enough."""
        self._trace: Trace = scope["trace"]
        self._tokens = Tokens()
        self._started = time.monotonic()
        self._media: list[Part] = []
        self._pixels = 0
        """Of the images that were sent with the request itself."""
        self._gone: frozenset[uuid.UUID] = frozenset()
        """Replicas of a deployment that goes to zero: still in the routes, but no more at their addresses."""
        self._has_begun = False
        """Whether the head of the answer has been sent."""

    def translate(self, sent: dict[str, Any]) -> EngineRequest:
        if self.route.model.task != self._kind.task:
            raise other_task(self.route.model)
        if self._kind.needs_chat and not self.route.model.supports_chat:
            raise GatewayError(404, "NOT_FOUND", NO_CHAT, param="model")
        # A visitor's prompts are cached apart, so that hits and their timing tell nothing of other accounts.
        owner = self.route.deployment.account_id
        scope = None if owner == self._key.account_id else self._key.account_id
        model, deployment = self.route.model, self.route.deployment
        request = self._kind.translate(sent, deployment.context_length, scope, model.call_form)
        if deployment.guesses_ahead:
            refuse_beside_guesses(request)
        if model.template is not None:
            write_by(model.template, request)
        self._media = list(media_of(request.body))
        if self._media:
            require_taken(self._media, model)
            self._pixels = take_pixels(self._media)
        return request

    async def run(self, sent: dict[str, Any], request: EngineRequest, send: Send, patience: Patience) -> None:
        """Answer, and record what it took, however it ends."""
        self._tokens.choices_per_prompt = request.body.get("n", 1)
        asked = Asked(self._gateway, self._key, self.route, self._id, sent, request, self._tokens)
        voice = self._kind.voice(asked)
        in_flight, deployment = self._gateway.telemetry.in_flight, self.route.deployment
        name = deployment.name
        in_flight[name] += 1
        carried = self._gateway.load.begin(deployment.uid)
        status = CLIENT_GONE
        try:
            if self._media:
                await self._inline_images(patience.hold)
            status = await self._reach(request, voice, send, patience)
        except GatewayError as error:
            status = error.status
            if not self._has_begun:
                raise
            await _send_body(send, voice.fail(error), more=False)
        except Exception:
            status = 500
            raise
        finally:
            prompt, completion = self._tokens.prompt, self._tokens.completion
            in_flight[name] -= 1
            self._gateway.load.end(carried, prompt, completion)
            if deployment.account_id != self._key.account_id:
                self._gateway.token_rate.add(self._key.account_id, prompt, completion)
            if self._key.tokens_per_minute is not None:
                taken = prompt + completion
                self._gateway.token_rate.count(counted_as(self._key.key_id), [(TOGETHER, taken)])
            self._record(status, request.stream, prompt, completion)

    async def _inline_images(self, hold: Callable[[int], None]) -> None:
        require_pixels(self._pixels)
        fetched = await self._gateway.images.inline(self._media, hold, self._key.account_id)
        require_pixels(self._pixels + fetched)

    async def _reach(self, request: EngineRequest, voice: Voice, send: Send, patience: Patience) -> int:
        """Answer from a replica. Where none is at its address any more, the routes may be older than that."""
        self.route = self._current_route()
        if not self.route.targets:
            await self._wait_for_replica(request, voice, send, patience)
        try:
            return await self._answer(request, voice, send)
        except NoneReached:
            asked = self.route.targets
            await self._gateway.look_again()
            now = same_route(self._gateway, self.route)
            if now.targets == asked and now.deployment.desired_replicas > 0:
                raise
            if not now.deployment.desired_replicas:
                self._gone = frozenset(target.replica_uid for target in asked)
        self.route = self._current_route()
        if not self.route.targets:
            await self._wait_for_replica(request, voice, send, patience)
        return await self._answer(request, voice, send)

    async def _wait_for_replica(
        self, request: EngineRequest, voice: Voice, send: Send, patience: Patience
    ) -> None:
        async def sign_of_life() -> None:
            if request.stream:
                await self._begin_stream(request.headers, send)
                await _send_body(send, voice.keep_alive)

        with self._trace.step("wait for replica"):
            self.route = await self._gateway.activator.until_ready(
                self._current_route,
                lambda route: no_replica(route, self._key),
                size=patience.size,
                seconds=patience.seconds,
                meanwhile=sign_of_life,
            )

    def _current_route(self) -> Route:
        """As it is now, without the replicas that are known to be gone."""
        now = same_route(self._gateway, self.route)
        if not self._gone:
            return now
        left = tuple(target for target in now.targets if target.replica_uid not in self._gone)
        return now if len(left) == len(now.targets) else dataclasses.replace(now, targets=left)

    async def _answer(self, request: EngineRequest, voice: Voice, send: Send) -> int:
        engines = self._gateway.engines
        endpoint = self._kind.engine_endpoint
        step = engine_step(self._trace, endpoint, self.route)
        with step, Asking(engines, self.route, endpoint, request, self._engine_id, step) as asking:
            answer = await step.within("first byte", asking.answer())
            elapsed = time.monotonic() - self._started
            self._gateway.telemetry.see_first_byte(self._kind.endpoint, self.route.deployment.name, elapsed)
            if answer.parts is None:
                return await self._whole(answer.whole, voice, request.headers, send)
            return await step.within("stream", self._stream(answer.parts, voice, request.headers, send))

    async def _whole(self, answer: dict[str, Any], voice: Voice, more: Headers, send: Send) -> int:
        try:
            content = voice.whole(answer)
        except MalformedAnswer:
            raise GatewayError(502, "BAD_GATEWAY", "the model's engine failed to answer") from None
        headers = [
            JSON,
            (b"content-length", b"%d" % len(content)),
            (self._kind.id_header, self._request_id.encode()),
            (b"fireworks-prompt-tokens", b"%d" % self._tokens.prompt),
            (b"fireworks-cached-prompt-tokens", b"%d" % self._tokens.cached),
            *more,
        ]
        if (first := self._tokens.seconds("time_to_first_token_ms")) is not None:
            headers.append((b"fireworks-server-time-to-first-token", str(first).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return 200

    async def _stream(self, parts: EventParts, voice: Voice, more: Headers, send: Send) -> int:
        """Relay the events as they come. What goes wrong from here on is told in an event of its own."""
        await self._begin_stream(more, send)
        told: list[bytes] = []
        try:
            async for part in parts:
                _tell(part, voice, told)
                if told and not parts.is_done:  # what came with the end leaves with the end
                    await _send_body(send, b"".join(told))
                    told.clear()
            status, ending = 200, voice.end()
        except WrongCall as error:
            status, ending = error.status, voice.fail(error)
        except (*BROKEN_OFF, EngineDied, MalformedAnswer, GatewayError):
            broken = GatewayError(
                502, "BAD_GATEWAY", "the model's engine stopped in the middle of its answer"
            )
            status, ending = broken.status, voice.fail(broken)
        await _send_body(send, b"".join([*told, ending]), more=False)
        return status

    async def _begin_stream(self, more: Headers, send: Send) -> None:
        """Send the head, unless that has been done to keep the connection open."""
        if self._has_begun:
            return
        self._has_begun = True
        headers = [EVENT_STREAM, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *more]
        headers.append((self._kind.id_header, self._request_id.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    def _record(self, status: int, streamed: bool, prompt: int, completion: int) -> None:
        tokens, deployment = self._tokens, self.route.deployment.name
        self._gateway.telemetry.see_answer(
            self._key.account_id, deployment, status, prompt, tokens.cached, completion
        )
        if self._trace.trace_id:
            self._trace.note(usage_of(tokens))
        self._gateway.meter.record(
            {
                "account_id": self._key.account_id,
                "owner_id": self.route.deployment.account_id,
                "user_id": self._key.user_id,
                "key_id": self._key.key_id,
                "model": self.route.model.name,
                "deployment": deployment,
                "endpoint": self._kind.endpoint,
                "http_status": status,
                "prompt_tokens": prompt,
                "cached_prompt_tokens": tokens.cached,
                "completion_tokens": completion,
                "streamed": streamed,
                "duration_ms": round((time.monotonic() - self._started) * 1000),
            }
        )


def _tell(part: bytes, voice: Voice, told: list[bytes]) -> None:
    """Add what is to be sent for a part's events; those before an engine's error are told before it."""
    passed, rest = voice.passage.take(part) if voice.passage else (b"", part)
    if passed:
        told.append(passed)
    for event in read_events(rest) if rest else ():
        if "error" in event:
            raise EngineDied("the engine reported an error")
        told += voice.tell(event)


def _send_body(send: Send, body: bytes, *, more: bool = True) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": body, "more_body": more})
