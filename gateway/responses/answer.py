"""An answer in the shape of responses, whole or as numbered events, and what is stored of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.answers import MalformedAnswer
from gateway.errors import GatewayError
from gateway.metering import Tokens
from gateway.passage import Passage
from gateway.responses.items import Item, read_items
from gateway.responses.output import Event, Output
from gateway.voices import Asked, shaper_of

ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and how it reads where the request says nothing."""


class ResponseVoice:
    """Tells a chat's answer as a response. There is always one choice."""

    passage: Passage | None = None
    keep_alive = b": waiting for a replica\n\n"

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._shaper = shaper_of(asked)
        self._output = Output()
        self._created = int(time.time())
        self._number = 0
        self._has_begun = False
        self._finish = ""
        self._stored = asked.sent.get("store") is not False
        self._items: list[Item] = read_items(asked.sent.get("input"))

    def whole(self, answer: dict[str, Any]) -> bytes:
        choices = self._shaper.whole(answer)["choices"]
        if len(choices) != 1:
            raise MalformedAnswer
        self._finish = choices[0].get("finish_reason") or ""
        for _ in self._output.take(choices[0].get("message") or {}):
            pass
        for _ in self._output.close():
            pass
        return msgspec.json.encode(self._finished())

    def tell(self, event: dict[str, Any]) -> Iterator[bytes]:
        for chunk in self._shaper.chunk(event):
            yield self._chunk(chunk)

    def end(self) -> bytes:
        told = b"".join([self._chunk(chunk) for chunk in self._shaper.end()])
        last = "incomplete" if self._finish == "length" else "completed"
        told += self._encode([*self._begin(), *self._output.close(last)])
        response = self._finished()
        return told + self._encode([{"type": f"response.{response['status']}", "response": response}])

    def fail(self, error: GatewayError) -> bytes:
        for _ in self._output.close():
            pass
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        failure = {"code": code, "message": error.message}
        response = self._response("failed", error=failure, usage=_usage(self._asked.tokens))
        return self._encode([*self._begin(), {"type": "response.failed", "response": response}])

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        if not chunk["choices"]:
            return b""
        choice = chunk["choices"][0]
        self._finish = choice.get("finish_reason") or self._finish
        return self._encode([*self._begin(), *self._output.take(choice.get("delta") or {})])

    def _begin(self) -> list[Event]:
        if self._has_begun:
            return []
        self._has_begun = True
        response = {**self._response("in_progress"), "output": []}
        return [{"type": f"response.{what}", "response": response} for what in ("created", "in_progress")]

    def _finished(self) -> dict[str, Any]:
        """The response as it is in the end, which is what is stored."""
        cut_off = self._finish == "length"
        if cut_off:
            self._output.cut_off()
        response = self._response(
            "incomplete" if cut_off else "completed",
            incomplete_details={"reason": "max_output_tokens"} if cut_off else None,
            usage=_usage(self._asked.tokens),
        )
        if self._stored:
            sent = self._asked.sent
            store, account_id = self._asked.gateway.responses, self._asked.key.account_id
            store.put(response["id"], account_id, sent.get("previous_response_id"), self._items, response)
        return response

    def _response(self, status: str, **known: Any) -> dict[str, Any]:
        sent = self._asked.sent
        said = {name: unset if sent.get(name) is None else sent[name] for name, unset in ECHOED.items()}
        return {
            "id": f"resp_{self._asked.id}" if self._stored else None,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._asked.route.model.name,
            "output": self._output.items,
            "store": self._stored,
            "usage": None,
            **said,
            **known,
        }

    def _encode(self, events: Iterable[Event]) -> bytes:
        told = []
        for event in events:
            numbered = {**event, "sequence_number": self._number}
            self._number += 1
            told += [b"event: ", event["type"].encode(), b"\ndata: ", msgspec.json.encode(numbered), b"\n\n"]
        return b"".join(told)


def _usage(tokens: Tokens) -> dict[str, Any]:
    """Under OpenAI's names, and under those of the other endpoints."""
    total = tokens.prompt + tokens.completion
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": total,
    }
