"""Asking an engine: over to the least loaded replica, to another one when it cannot be reached."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from gateway.balancer import Balancer
from gateway.checks import NOT_JSON
from gateway.dialect import PASSED, EngineRequest
from gateway.errors import GatewayError, invalid, unavailable
from gateway.limits import Limits
from gateway.snapshot import Route, Target
from gateway.sse import DONE, EventTooLarge, event_batches

log = logging.getLogger("hearth.gateway")

ATTEMPTS = 2
# Engines close idle connections after 5 s; reusing one later races with that.
KEEPALIVE_SECONDS = 4.0
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


Batches = AsyncIterator[list[dict[str, Any]]]
"""A stream's events, as the network brings them."""


class EngineUnreachable(Exception):
    """The replica gave no answer at all, so that another one may be asked."""


class EngineDied(Exception):
    """The engine stopped in the middle of its answer."""


@dataclass(frozen=True)
class Answer:
    """An engine's answer whose first part has arrived: all of it, or a stream's first events."""

    whole: dict[str, Any]
    """Empty for a stream."""
    batches: Batches | None = None


class Engines:
    """The connections to all replicas. Only the two paths of the API are ever asked for, and `/tokenize`."""

    def __init__(self, limits: Limits, balancer: Balancer) -> None:
        self._limits = limits
        self._balancer = balancer
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_seconds, sock_read=limits.silence_seconds
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def ask(
        self, route: Route, endpoint: str, request: EngineRequest, request_id: str
    ) -> AsyncIterator[Answer]:
        """The first replica's answer, or a second one's when nothing came of the first.

        `route` must have targets. The answer's connection is closed at the end of the block, which is what
        stops an engine that is still generating.
        """
        failed: set[uuid.UUID] = set()
        for _ in range(ATTEMPTS):
            target = self._balancer.choose(route.targets, failed)
            call = _Call(self._client, self._limits, route, target, request_id)
            async with AsyncExitStack() as stack:
                stack.enter_context(self._balancer.lease(target))
                try:
                    answer = await stack.enter_async_context(call.answer(endpoint, request))
                except EngineUnreachable as error:
                    log.warning("replica %s of %s: %s", target.replica_uid, route.deployment.name, error)
                    self._balancer.avoid(target)
                    failed.add(target.replica_uid)
                    continue
                yield answer
                return
        raise unavailable("UNAVAILABLE", "the model's replicas cannot be reached at the moment; try again")


class _Call:
    """One request to one replica."""

    def __init__(
        self, client: aiohttp.ClientSession, limits: Limits, route: Route, target: Target, request_id: str
    ) -> None:
        self._client = client
        self._limits = limits
        self._route = route
        self._target = target
        self._headers = {"Content-Type": "application/json", "X-Request-Id": request_id}

    @asynccontextmanager
    async def answer(self, endpoint: str, request: EngineRequest) -> AsyncIterator[Answer]:
        await self._require_room(request)
        response = await self._post(f"/v1/{endpoint}", request.body)
        try:
            if response.status != 200:
                raise self._refusal(response.status, await self._read(response))
            if not request.stream:
                yield Answer(self._object(await self._read(response)))
                return
            async with aclosing(self._batches(response)) as batches:
                first = await self._first(batches)
                yield Answer({}, _chained(first, batches))
        finally:
            response.close()

    async def _post(self, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        content = msgspec.json.encode({**body, "model": self._target.engine_name})
        try:
            return await self._client.post(self._target.url + path, data=content, headers=self._headers)
        except aiohttp.ConnectionTimeoutError as error:
            raise EngineUnreachable(str(error)) from None
        except TimeoutError:
            raise _too_slow() from None
        except aiohttp.ClientError as error:
            raise EngineUnreachable(str(error) or type(error).__name__) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        try:
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > self._limits.answer_bytes:
                    raise _broken()
        except TimeoutError:
            raise _too_slow() from None
        except aiohttp.ClientError:
            raise _broken() from None
        return bytes(content)

    async def _batches(self, response: aiohttp.ClientResponse) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The stream's events, until its end mark; EngineDied when it ends without one."""
        try:
            async for batch in event_batches(response.content.iter_any(), self._limits.event_bytes):
                ended = DONE in batch
                events = batch[: batch.index(DONE)] if ended else batch
                if events:
                    yield [self._object(event) for event in events]
                if ended:
                    return
        except (TimeoutError, aiohttp.ClientError, EventTooLarge) as error:
            raise EngineDied(type(error).__name__) from None
        raise EngineDied("the stream has no end")

    async def _first(self, batches: Batches) -> list[dict[str, Any]]:
        """The first events. An engine reports what is wrong with a streamed request in the first of them."""
        try:
            first = await anext(batches)
        except EngineDied as error:
            if str(error) == aiohttp.SocketTimeoutError.__name__:
                raise _too_slow() from None
            raise EngineUnreachable(f"ended before its first event: {error}") from None
        except StopAsyncIteration:
            raise _broken() from None
        if "error" in first[0]:
            raise self._refusal(_code_of(first[0]), msgspec.json.encode(first[0]))
        return first

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            value = msgspec.json.decode(text)
        except NOT_JSON:
            raise _broken() from None
        if not isinstance(value, dict):
            raise _broken()
        return value

    def _refusal(self, status: int, body: bytes) -> Exception:
        """The engine's no, as the caller may see it: what is wrong with the request, and nothing else."""
        if status == 404:
            return EngineUnreachable("the engine does not know the model")
        if status in (429, 503):
            return unavailable("OVERLOADED", "the model's engine is overloaded; try again")
        if status in (400, 413, 422):
            message, param = _said(body)
            return invalid(message.replace(self._target.engine_name, self._route.model.name), param)
        log.error("%s: the engine answered %s: %.500r", self._route.deployment.name, status, body)
        return _broken()

    async def _require_room(self, request: EngineRequest) -> None:
        """Refuse a prompt that leaves less than the tokens asked for, when the caller wants that."""
        wanted = request.exact_max_tokens
        if wanted is None:
            return
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
        response = await self._post("/tokenize", prompt)
        try:
            body = await self._read(response)
            if response.status != 200:
                raise self._refusal(response.status, body)
        finally:
            response.close()
        counted = self._object(body)
        return int(counted["count"]), int(counted["max_model_len"])


def _prompts(body: dict[str, Any]) -> list[Any]:
    """Each prompt of a request: a list of token ids, or what the engine's tokenizer is asked."""
    if "messages" in body:
        return [{name: body[name] for name in ("messages", "tools") if name in body}]
    prompt = body["prompt"]
    listed = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return [{"prompt": item} if isinstance(item, str) else item for item in listed]


async def _chained(first: list[dict[str, Any]], rest: Batches) -> Batches:
    yield first
    async for batch in rest:
        yield batch


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


def _broken() -> GatewayError:
    return GatewayError(502, "BAD_GATEWAY", "the model's engine failed to answer")
