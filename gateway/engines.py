"""Asking an engine: over to the replica that suits best, to another one when it cannot be reached."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable
from typing import Any, Self

import msgspec

from controlplane.observability.traces import Trace
from gateway.affinity import affinity_of
from gateway.balancer import Balancer
from gateway.checks import NOT_JSON
from gateway.connections import Broken, Connection, Connections, Silent, Unreachable
from gateway.dialect import EngineRequest
from gateway.errors import GatewayError, invalid, unavailable
from gateway.limits import Limits
from gateway.parameters import PASSED
from gateway.snapshot import Route, Target
from gateway.sse import EventParts, EventTooLarge, NoEnd, data_of, first_data
from gateway.telemetry import Telemetry

log = logging.getLogger("hearth.gateway")

ATTEMPTS = 2
ENGINE_OPTION = re.compile(r"(?<!\S)--[a-z]")
PARAMETER_NOTE = re.compile(r" \(parameter=.*\)$", re.DOTALL)
ENGINE_PARAMS = PASSED.keys() | {
    "messages",
    "prompt",
    "max_tokens",
    "tools",
    "tool_choice",
    "response_format",
}
WRITTEN_BY = ("messages", "tools", "chat_template", "chat_template_kwargs")
"""What a chat's prompt comes of."""


class EngineFailed(GatewayError):
    """The engine has a fault of its own, or is about to stop. Nothing came of the request."""

    def __init__(self) -> None:
        super().__init__(502, "BAD_GATEWAY", "the model's engine failed to answer")


class NoneReached(GatewayError):
    """No replica could be asked. Nothing came of the request."""

    def __init__(self) -> None:
        message = "the model's replicas cannot be reached at the moment; try again"
        super().__init__(503, "UNAVAILABLE", message, headers={"Retry-After": "1"})


class EngineDied(Exception):
    """The engine reported an error in the middle of its answer."""


BROKEN_OFF = (Silent, Broken, Unreachable, NoEnd, EventTooLarge)


class Answer(msgspec.Struct, frozen=True):
    """An engine's answer whose first part has arrived: all of it, or a stream's first events."""

    whole: dict[str, Any]
    """Empty for a stream."""
    parts: EventParts | None = None
    """A stream's whole events, as the network brings them; see `read_events`. One of `BROKEN_OFF` when it
    breaks off, or ends without an end mark."""


BROKEN_EVENT = {"error": "no event that can be read"}


def read_events(part: bytes) -> list[dict[str, Any]]:
    """The events of a stream's part; one that cannot be read is an error, and nothing after it counts."""
    events: list[dict[str, Any]] = []
    for data in data_of(part):
        try:
            event = msgspec.json.decode(data)
        except NOT_JSON:
            event = BROKEN_EVENT
        events.append(event if isinstance(event, dict) else BROKEN_EVENT)
    return events


class Engines:
    """Asks replicas. Only the two paths of the API are ever asked for, and `/tokenize`."""

    def __init__(self, limits: Limits, balancer: Balancer, telemetry: Telemetry) -> None:
        self.limits = limits
        self.balancer = balancer
        self.telemetry = telemetry
        self.connections = Connections(limits)

    async def close(self) -> None:
        await self.connections.close()


class Asking:
    """One request on its way to a replica, as a block: the first one's answer, or a second one's when nothing
    came of the first.

    `route` must have targets. The answer is read inside of the block; leaving it in the middle closes the
    connection, which is what stops an engine that is still generating.
    """

    def __init__(
        self,
        engines: Engines,
        route: Route,
        endpoint: str,
        request: EngineRequest,
        request_id: str,
        trace: Trace,
    ) -> None:
        self.engines = engines
        self.route = route
        self.request_id = request_id
        self.trace = trace
        self._endpoint = endpoint
        self._request = request
        self._call: _Call | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._call is not None:
            self._call.release()

    async def answer(self) -> Answer:
        balancer, targets = self.engines.balancer, self.route.targets
        affinity = affinity_of(self.route, self._request) if len(targets) > 1 else None
        failed: list[uuid.UUID] = []
        for _ in range(ATTEMPTS):
            target = balancer.choose(targets, failed, affinity)
            call = _Call(self, target)
            try:
                answer = await call.answer(self._endpoint, self._request)
            except Silent:
                call.release()
                raise _too_slow() from None
            except (Unreachable, Broken) as error:
                call.release()
                self.engines.telemetry.see_failure(self.route.deployment.name, "unreachable")
                log.warning("replica %s of %s: %s", target.replica_uid, self.route.deployment.name, error)
                balancer.avoid(target)
                failed.append(target.replica_uid)
            except EngineFailed:
                call.release()
                self.engines.telemetry.see_failure(self.route.deployment.name, "failed")
                balancer.avoid(target)
                failed.append(target.replica_uid)
                if len(failed) in (ATTEMPTS, len(targets)):
                    raise
            except BaseException:
                call.release()
                raise
            else:
                self._call = call
                return answer
        raise NoneReached()


class _Call:
    """One request to one replica, which counts as busy until the call is released."""

    def __init__(self, asking: Asking, target: Target) -> None:
        self._connections = asking.engines.connections
        self._limits = asking.engines.limits
        self._route = asking.route
        self._request_id = asking.request_id
        self._traceparent = asking.trace.traceparent
        self._target = target
        self._connection: Connection | None = None
        self._events: EventParts | None = None
        self._release_target = asking.engines.balancer.take(target)

    def release(self) -> None:
        self._release_target()
        if self._connection is not None:
            self._connection.release(nearly_ended=self._events is not None and self._events.is_done)
            self._connection = None

    async def answer(self, endpoint: str, request: EngineRequest) -> Answer:
        if request.exact_max_tokens is not None:
            await self._require_room(request, request.exact_max_tokens)
        self._connection = connection = await self._post(f"/v1/{endpoint}", request.body)
        if connection.status != 200:
            raise self._refusal(connection.status, await self._read(connection))
        if not request.stream:
            text = connection.whole(self._limits.answer_bytes) or await self._read(connection)
            return Answer(self._object(text))
        self._events = EventParts(connection.part, self._limits.event_bytes)
        self._events.put_back(await self._first(self._events))
        return Answer({}, self._events)

    def _post(self, path: str, body: dict[str, Any]) -> Awaitable[Connection]:
        """Raises Unreachable, Silent or Broken, as the connections do."""
        content = msgspec.json.encode({**body, "model": self._target.engine_name})
        return self._connections.post(self._target.url, path, content, self._request_id, self._traceparent)

    async def _read(self, connection: Connection) -> bytes:
        try:
            return await connection.read(self._limits.answer_bytes)
        except Silent:
            raise _too_slow() from None
        except Broken:
            raise EngineFailed() from None

    async def _first(self, events: EventParts) -> bytes:
        """The first events. An engine reports what is wrong with a streamed request in the first of them."""
        try:
            first = await anext(events)
            while not (data := first_data(first)):  # nothing but comments
                first = await anext(events)
        except Silent:
            raise _too_slow() from None
        except (Broken, NoEnd, EventTooLarge) as error:
            raise Unreachable(f"ended before its first event: {type(error).__name__}") from None
        except StopAsyncIteration:
            raise EngineFailed() from None
        event = self._object(data)
        if "error" in event:
            raise self._refusal(_code_of(event), msgspec.json.encode(event))
        return first

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            value = msgspec.json.decode(text)
        except NOT_JSON:
            raise EngineFailed() from None
        if not isinstance(value, dict):
            raise EngineFailed()
        return value

    def _refusal(self, status: int, body: bytes) -> Exception:
        """The engine's no, as the caller may see it: what is wrong with the request, and nothing else."""
        if status == 404:
            return Unreachable("the engine does not know the model")
        if status in (429, 503):
            return unavailable("OVERLOADED", "the model's engine is overloaded; try again")
        if status in (400, 413, 422):
            message, param = _said(body)
            return invalid(message.replace(self._target.engine_name, self._route.model.name), param)
        log.error("%s: the engine answered %s: %.500r", self._route.deployment.name, status, body)
        return EngineFailed()

    async def _require_room(self, request: EngineRequest, wanted: int) -> None:
        """Refuse a prompt that leaves less than the tokens asked for, when the caller wants that."""
        limit = self._route.deployment.context_length
        for prompt in _prompts(request.body):
            if isinstance(prompt, list):
                count = len(prompt)
            else:
                count, limit = await self._count_tokens(prompt)
            if limit and count + wanted > limit:
                raise invalid(
                    f"the prompt has {count} tokens and {wanted} are asked for, "
                    f"but the model's context length is {limit}",
                    "max_tokens",
                )

    async def _count_tokens(self, prompt: dict[str, Any]) -> tuple[int, int]:
        self._connection = connection = await self._post("/tokenize", prompt)
        body = await self._read(connection)
        connection.release()
        self._connection = None
        if connection.status != 200:
            raise self._refusal(connection.status, body)
        counted = self._object(body)
        return int(counted["count"]), int(counted["max_model_len"])


def _prompts(body: dict[str, Any]) -> list[Any]:
    """Each prompt of a request: a list of token ids, or what the engine's tokenizer is asked."""
    if "messages" in body:
        return [{name: body[name] for name in WRITTEN_BY if name in body}]
    prompt = body["prompt"]
    listed = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return [{"prompt": item} if isinstance(item, str) else item for item in listed]


def _code_of(event: dict[str, Any]) -> int:
    error = event["error"]
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _said(body: bytes) -> tuple[str, str | None]:
    """What the engine finds wrong with the request, and the field of ours that it names, if it does."""
    try:
        said = msgspec.json.decode(body)
    except NOT_JSON:
        said = None
    error = said.get("error", said) if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(message, str) or not message:
        return "the model's engine refused the request", None
    if ENGINE_OPTION.search(message):
        return "the model's engine is not set up to serve such a request", None
    param = error.get("param")
    return PARAMETER_NOTE.sub("", message), param if param in ENGINE_PARAMS else None


def _too_slow() -> GatewayError:
    return GatewayError(504, "GATEWAY_TIMEOUT", "the model's engine did not answer in time")
