"""An answer in Anthropic's shape: content blocks, whole or as events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.answers import MalformedAnswer
from gateway.checks import NOT_JSON
from gateway.errors import GatewayError
from gateway.messages.errors import message_error
from gateway.metering import Tokens
from gateway.passage import Passage
from gateway.voices import Asked, shaper_of

Event = dict[str, Any]

REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
PING = {"type": "ping"}


class MessageVoice:
    """Tells a chat's answer as a message. There is always one choice."""

    passage: Passage | None = None
    keep_alive = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, asked: Asked) -> None:
        self._id = asked.id
        self._model = asked.route.model.name
        self._tokens = asked.tokens
        self._shaper = shaper_of(asked)
        self._blocks = Blocks()
        self._has_begun = False
        self._last: dict[str, Any] = {}
        """What ended the answer: the choice with a finish reason."""

    def whole(self, answer: dict[str, Any]) -> bytes:
        choice = _only_choice(self._shaper.whole(answer))
        message = {
            **self._message(list(_content(choice.get("message") or {}))),
            **_ending(choice),
            "usage": _usage(self._tokens),
        }
        if "raw_output" in choice:
            message["raw_output"] = choice["raw_output"]
        return msgspec.json.encode(message)

    def tell(self, event: dict[str, Any]) -> Iterator[bytes]:
        for chunk in self._shaper.chunk(event):
            yield self._chunk(chunk)

    def end(self) -> bytes:
        told = b"".join([self._chunk(chunk) for chunk in self._shaper.end()])
        usage = _usage(self._tokens)
        ending = {"type": "message_delta", "delta": _ending(self._last), "usage": usage}
        if "raw_output" in self._last:
            ending["raw_output"] = self._last["raw_output"]
        return told + _encode([*self._begin(), *self._blocks.close(), ending, {"type": "message_stop"}])

    def fail(self, error: GatewayError) -> bytes:
        return _encode([message_error(error, self._id)])

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        if not chunk["choices"]:
            return b""
        choice = chunk["choices"][0]
        if choice.get("finish_reason"):
            self._last = choice
        return _encode([*self._begin(), *self._blocks.take(choice.get("delta") or {})])

    def _begin(self) -> list[Event]:
        if self._has_begun:
            return []
        self._has_begun = True
        message = {
            **self._message([]),
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._tokens),
        }
        return [{"type": "message_start", "message": message}, PING]

    def _message(self, content: list[Any]) -> dict[str, Any]:
        return {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
        }


class Blocks:
    """The content blocks of a stream: one is open at a time, and closed before the next begins."""

    def __init__(self) -> None:
        self._index = -1
        self._open: Any = None
        """What is open: `text`, `thinking`, or the index of a call."""

    def take(self, delta: dict[str, Any]) -> Iterator[Event]:
        if thought := delta.get("reasoning_content"):
            yield from self._into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": thought})
        if text := delta.get("content"):
            yield from self._into("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": text})
        for call in delta.get("tool_calls") or []:
            yield from self._call(call)

    def _call(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call["function"]
        block = {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}}
        yield from self._into(call["index"], block)
        if function.get("arguments"):
            yield self._delta({"type": "input_json_delta", "partial_json": function["arguments"]})

    def close(self) -> Iterator[Event]:
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._index}
            self._open = None

    def _into(self, what: Any, block: dict[str, Any]) -> Iterator[Event]:
        if self._open == what:
            return
        yield from self.close()
        self._open = what
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _only_choice(answer: dict[str, Any]) -> dict[str, Any]:
    if len(answer["choices"]) != 1:
        raise MalformedAnswer
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def _content(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if thought := message.get("reasoning_content"):
        yield {"type": "thinking", "thinking": thought, "signature": ""}
    if text := message.get("content"):
        yield {"type": "text", "text": text}
    for call in message.get("tool_calls") or []:
        function = call["function"]
        try:
            arguments = msgspec.json.decode(function["arguments"])
        except NOT_JSON:
            continue  # cut off by the number of tokens, which the reason of the end says
        yield {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _ending(choice: dict[str, Any]) -> dict[str, Any]:
    finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
    if finish == "stop" and isinstance(stop, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": REASONS.get(str(finish), "end_turn"), "stop_sequence": None}


def _usage(tokens: Tokens) -> dict[str, int]:
    """What was read from the prompt cache is no input here."""
    return {
        "input_tokens": tokens.prompt - tokens.cached,
        "output_tokens": tokens.completion,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation_input_tokens": 0,
    }


def _encode(events: list[Event]) -> bytes:
    return b"".join(
        [
            b"event: " + event["type"].encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
            for event in events
        ]
    )
