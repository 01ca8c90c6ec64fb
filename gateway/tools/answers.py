"""Calls in answers, in the shape that callers read: found in the text, checked, and told piece by piece."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import msgspec

from gateway.checks import NOT_JSON
from gateway.errors import GatewayError
from gateway.tools.grammar import BLANK
from gateway.tools.reader import CallReader, Piece
from gateway.tools.requested import Calling, Function

ID_CHARACTERS = string.ascii_letters + string.digits


class WrongCall(GatewayError):
    """A call of no offered function, or one that is not whole. Told to the caller, in a stream as well."""


@dataclass
class Choice:
    """What has come of one choice."""

    reader: CallReader = field(default_factory=CallReader)
    held: str = ""
    """Blanks that have come before anything that tells a call from plain words."""
    decided: bool = False
    """What comes is a call."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """The calls as far as they came: {"id", "name", "arguments"}."""
    in_words: bool = False


class CallAnswers:
    """Turns the answers to one request that may be calls, whole or chunk by chunk, after all else is shaped.

    `native`: the engine has found the calls by itself; they are only checked.
    """

    def __init__(self, calling: Calling, *, native: bool, short_ids: bool) -> None:
        self._calling = calling
        self._native = native
        self._short_ids = short_ids
        self._openings = ("{", "[") if calling.parallel else ("{",)
        self._functions = {each.name: each for each in calling.functions}
        self._choices: dict[int, Choice] = {}

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer["choices"]:
            message = choice.get("message") or {}
            seen = self._choices.setdefault(choice.get("index", 0), Choice())
            self._deltas(seen, choice, message)
            self._finish(seen, choice, message)
            self._put(seen, message)
        return answer

    def chunk(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks to send for one. Those that would tell nothing are left out."""
        if not chunk["choices"]:
            yield chunk
            return
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            seen = self._choices.setdefault(choice.get("index", 0), Choice())
            deltas = self._deltas(seen, choice, delta)
            self._finish(seen, choice, delta)
            yield from self._chunks(chunk, choice, delta, deltas)

    def _chunks(
        self,
        chunk: dict[str, Any],
        choice: dict[str, Any],
        delta: dict[str, Any],
        calls: list[dict[str, Any]],
    ) -> Iterator[dict[str, Any]]:
        """One chunk for each piece of a call; what else the choice says goes with the last."""
        for call in calls[:-1]:
            bare = {"index": choice.get("index", 0), "delta": self._shaped(call), "finish_reason": None}
            yield {**chunk, "choices": [bare], "usage": None}
        if calls:
            delta |= self._shaped(calls[-1])
            if delta.get("content") is None and "role" not in delta:
                delta.pop("content", None)
        tells = any(value is not None for value in delta.values()) or choice.get("logprobs")
        if tells or choice.get("finish_reason") or chunk.get("usage"):
            yield {**chunk, "choices": [{**choice, "delta": delta}]}

    def _shaped(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"function_call": call["function"]} if self._calling.older else {"tool_calls": [call]}

    def _deltas(self, seen: Choice, choice: dict[str, Any], message: dict[str, Any]) -> list[dict[str, Any]]:
        """The pieces of calls in a message, which is left without them."""
        if not self._native:
            return list(self._read(seen, message))
        deltas = list(self._found(seen, message))
        if choice.get("finish_reason") not in (None, "length") and not _was_stopped(choice):
            bare = [index for index, call in enumerate(seen.calls) if not call["arguments"]]
            deltas += [self._take(seen, Piece(index, None, "{}")) for index in bare]
        return deltas

    def _read(self, seen: Choice, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Take the calls out of a message's text."""
        text = message.get("content")
        if not text or seen.in_words:
            return
        message["content"] = None
        if not seen.decided:
            text = seen.held + text
            opening = text.lstrip(BLANK)[:1]
            if not self._calling.required and opening not in self._openings:
                # Blanks tell nothing yet; other words are no call.
                seen.held, seen.in_words = ("", True) if opening else (text, False)
                message["content"] = text if opening else None
                return
            seen.decided = True
        yield from (self._take(seen, piece) for piece in seen.reader.feed(text))

    def _take(self, seen: Choice, piece: Piece) -> dict[str, Any]:
        """A piece of a call as a delta. The id, the type and the name are told once."""
        if piece.name is None:
            seen.calls[piece.index]["arguments"] += piece.arguments
            return {"index": piece.index, "function": {"arguments": piece.arguments}}
        call = {"id": self._new_id(), "name": piece.name, "arguments": ""}
        seen.calls.append(call)
        return {
            "index": piece.index,
            "id": call["id"],
            "type": "function",
            "function": {"name": piece.name, "arguments": ""},
        }

    def _found(self, seen: Choice, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The calls that the engine found, each told of once."""
        for order, call in enumerate(message.pop("tool_calls", None) or []):
            index, function = call.get("index", order), call.get("function") or {}
            if self._calling.parallel is False and index > 0:
                continue
            arguments = function.get("arguments") or ""
            if index > len(seen.calls):
                raise _wrong("the model's engine told of calls out of their order")
            if index == len(seen.calls):
                yield self._take(seen, Piece(index, function.get("name") or "", ""))
            if arguments:
                yield self._take(seen, Piece(index, None, arguments))

    def _finish(self, seen: Choice, choice: dict[str, Any], message: dict[str, Any]) -> None:
        """At the end of a choice: check its calls, and say that it ended with them."""
        if choice.get("finish_reason") is None:
            return
        if seen.decided or (self._calling.required and not self._native):
            self._require_whole(seen, choice)
        elif seen.held:
            message["content"] = seen.held
        if not seen.calls or choice["finish_reason"] == "length":
            return
        for call in seen.calls:
            if _was_stopped(choice) and not _is_object(call["arguments"]):
                raise _cut_off("a text of 'stop' came up inside the call", "stop")
            self._require_right(call)
        choice["finish_reason"] = "function_call" if self._calling.older else "tool_calls"

    def _require_whole(self, seen: Choice, choice: dict[str, Any]) -> None:
        if seen.reader.is_whole:
            if choice["finish_reason"] == "length":
                choice["finish_reason"] = "stop"
            return
        if choice["finish_reason"] == "length":
            if self._calling.required:
                raise _cut_off(
                    "the call needs more tokens than 'max_tokens' and the context leave", "max_tokens"
                )
            return
        if _was_stopped(choice):
            raise _cut_off("a text of 'stop' came up inside the call", "stop")
        raise _wrong("the model's engine did not keep to the form of a call")

    def _require_right(self, call: dict[str, Any]) -> None:
        function = self._functions.get(call["name"])
        if function is None or (self._calling.only not in (None, call["name"])):
            raise _wrong(f"the model called {call['name'][:64]!r}, which is none of the functions")
        try:
            arguments = msgspec.json.decode(call["arguments"])
        except NOT_JSON:
            raise _wrong(f"the model called {function.name} with arguments that are no JSON") from None
        if not isinstance(arguments, dict):
            raise _wrong(f"the model called {function.name} with arguments that are no object")
        if (function.strict or not self._native) and not _fits(function, arguments):
            raise _wrong(f"the model called {function.name} with arguments that do not fit its schema")

    def _put(self, seen: Choice, message: dict[str, Any]) -> None:
        if not seen.calls:
            return
        message["content"] = message.get("content") or None
        functions = [{"name": call["name"], "arguments": call["arguments"]} for call in seen.calls]
        if self._calling.older:
            message["function_call"] = functions[0]
            return
        message["tool_calls"] = [
            {"index": index, "id": call["id"], "type": "function", "function": function}
            for index, (call, function) in enumerate(zip(seen.calls, functions, strict=True))
        ]

    def _new_id(self) -> str:
        """Mistral's templates take no other ids than those of nine letters and digits."""
        if self._short_ids:
            return _random(9)
        return "call_" + _random(24)


def _was_stopped(choice: dict[str, Any]) -> bool:
    """Whether it ended with one of the texts of `stop`."""
    return isinstance(choice.get("stop_reason"), str)


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except NOT_JSON:
        return False


def _random(length: int) -> str:
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(length))


def _fits(function: Function, arguments: dict[str, Any]) -> bool:
    return jsonschema_rs.Draft202012Validator(function.schema.form).is_valid(arguments)


def _cut_off(message: str, param: str) -> WrongCall:
    return WrongCall(400, "TOOL_CALL_CUT_OFF", message, param=param)


def _wrong(message: str) -> WrongCall:
    return WrongCall(502, "WRONG_TOOL_CALL", message)
