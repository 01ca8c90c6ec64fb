"""How answers are told: what the engine says goes in, and bytes in the caller's own shape come out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.answers import Shaper
from gateway.dialect import EngineRequest
from gateway.errors import GatewayError
from gateway.extras import ExtraTeller
from gateway.keys import KnownKey
from gateway.metering import Tokens
from gateway.passage import Passage, is_plain
from gateway.snapshot import Route
from gateway.sse import encode_done, encode_events

if TYPE_CHECKING:
    from gateway.gateway import Gateway


class Asked(msgspec.Struct, frozen=True):
    """One checked request, as the voice that tells its answer knows it."""

    gateway: Gateway
    key: KnownKey
    route: Route
    id: str
    sent: dict[str, Any]
    """What the caller sent."""
    request: EngineRequest
    tokens: Tokens


class Voice(Protocol):
    """Tells the answer to one request, all at once or event by event."""

    keep_alive: bytes
    """Sent in a stream while there is nothing to tell."""
    passage: Passage | None
    """Passes on what needs no telling, where there may be such."""

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The body of the answer; raises MalformedAnswer, WrongCall."""

    def tell(self, event: dict[str, Any]) -> Iterator[bytes]:
        """What to send for an engine's event; raises MalformedAnswer, WrongCall."""

    def end(self) -> bytes:
        """What is left to say at the end of a stream; raises WrongCall."""

    def fail(self, error: GatewayError) -> bytes:
        """The last words of a stream that went wrong."""


class TextVoice:
    """Text in OpenAI's shape, chat or completions."""

    keep_alive = b": waiting for a replica\n\n"

    def __init__(self, asked: Asked) -> None:
        self._shaper = shaper_of(asked)
        request = asked.request
        passed_on = request.stream and is_plain(request)
        self.passage = Passage(asked.route.model.name, asked.tokens) if passed_on else None

    def whole(self, answer: dict[str, Any]) -> bytes:
        return msgspec.json.encode(self._shaper.whole(answer))

    def tell(self, event: dict[str, Any]) -> Iterator[bytes]:
        for chunk in self._shaper.chunk(event):
            yield encode_events((chunk,))

    def end(self) -> bytes:
        return encode_events(self._shaper.end()) + encode_done()

    def fail(self, error: GatewayError) -> bytes:
        return encode_events([error.body])


def shaper_of(asked: Asked) -> Shaper:
    request = asked.request
    return Shaper(
        asked.route.model.name,
        asked.tokens,
        include_usage=request.include_usage,
        legacy_logprobs=request.legacy_logprobs,
        calls=request.calls,
        extras=ExtraTeller(request.extras, request.body, asked.tokens) if request.extras else None,
    )
