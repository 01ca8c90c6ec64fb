"""What the engine answers, put into the shape that callers read: names, usage, logprobs, nothing internal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from gateway.extras import ExtraTeller
from gateway.metering import Tokens
from gateway.tools.answers import CallAnswers

ENGINE_ONLY = (
    "system_fingerprint",
    "kv_transfer_params",
    "ec_transfer_params",
    "metrics",
    "prompt_logprobs",
    "prompt_text",
)
ENGINE_ONLY_IN_CHOICE = ("routed_experts", "prompt_logprobs")
LEFT_OUT_WHEN_NULL = ("stop_reason", "token_ids", "prompt_token_ids", "service_tier")
LEFT_OUT_OF_MESSAGE_WHEN_NULL = ("annotations", "audio", "function_call", "reasoning")


class MalformedAnswer(Exception):
    """The engine sent what is no answer."""


class Shaper:
    """Shapes the answer to one request, whole or chunk by chunk, and counts its tokens on the way."""

    def __init__(
        self,
        model_name: str,
        tokens: Tokens,
        *,
        include_usage: bool = False,
        legacy_logprobs: bool = False,
        calls: CallAnswers | None = None,
        extras: ExtraTeller | None = None,
    ) -> None:
        self.tokens = tokens
        self._extras = extras
        self._model_name = model_name
        self._include_usage = include_usage
        self._legacy_logprobs = legacy_logprobs
        self._calls = calls
        self._offsets: defaultdict[int, int] = defaultdict(int)
        self._last: dict[str, Any] | None = None
        """The newest chunk with a finish reason, kept until it is known whether the usage goes on it."""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        for choice in self._common(answer):
            self._tidy_choice(choice, "message", is_last=True)
        if usage := answer.get("usage"):
            self.tokens.see_total(usage)
        if self._extras:
            self._extras.finish(answer)
        return self._calls.whole(answer) if self._calls else answer

    def chunk(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks to send now; raises WrongCall."""
        for shaped in self._shaped(chunk):
            yield from self._calls.chunk(shaped) if self._calls else (shaped,)

    def end(self) -> Iterator[dict[str, Any]]:
        """The chunk that was kept back, if there is one; raises WrongCall."""
        for kept in self._kept_back():
            yield from self._calls.chunk(kept) if self._calls else (kept,)

    def _shaped(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunk and what was kept back before it. Usage is null on every one but the last.

        The engine sends usage in a chunk of its own, after the one with the finish reason. OpenAI clients
        that asked for usage read it there; all others find it on the finish reason's chunk.
        """
        usage = chunk.get("usage")
        choices = self._common(chunk)
        if not choices:
            self.tokens.see_total(usage or {})
            yield from self._ended(chunk, usage)
            return
        for choice in choices:
            self._tidy_choice(choice, "delta", is_last=bool(choice.get("finish_reason")))
            if usage:
                self.tokens.see_choice(choice.get("index", 0), usage)
        chunk["usage"] = None
        yield from self._kept_back()
        if any(choice.get("finish_reason") for choice in choices):
            self._last = chunk
        else:
            yield chunk

    def _ended(self, chunk: dict[str, Any], usage: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        """At the engine's own last chunk, which only tells the usage."""
        if self._include_usage:
            yield from self._kept_back()
        elif self._last is None:
            return
        else:
            chunk, self._last = self._last, None
            chunk["usage"] = usage
        if self._extras:
            self._extras.finish(chunk)
        yield chunk

    def _kept_back(self) -> Iterator[dict[str, Any]]:
        if self._last is not None:
            yield self._last
            self._last = None

    def _common(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        choices = answer.get("choices")
        if not isinstance(choices, list):
            raise MalformedAnswer
        answer["model"] = self._model_name
        if isinstance(reported := answer.get("metrics"), dict):
            self.tokens.reported = reported
        if self._extras:
            self._extras.see(answer)
        for name in ENGINE_ONLY:
            answer.pop(name, None)
        _leave_out_nulls(answer, LEFT_OUT_WHEN_NULL)
        return choices

    def _tidy_choice(self, choice: dict[str, Any], kind: str, *, is_last: bool) -> None:
        for name in ENGINE_ONLY_IN_CHOICE:
            choice.pop(name, None)
        _leave_out_nulls(choice, LEFT_OUT_WHEN_NULL)
        if message := choice.get(kind):
            _leave_out_nulls(message, LEFT_OUT_OF_MESSAGE_WHEN_NULL)
            if "reasoning" in message:
                message["reasoning_content"] = message.pop("reasoning")
        if self._legacy_logprobs and choice.get("logprobs"):
            choice["logprobs"] = self._as_legacy(choice.get("index", 0), choice["logprobs"])
        if self._extras:
            self._extras.tell(choice, kind, is_last=is_last)

    def _as_legacy(self, index: int, logprobs: dict[str, Any]) -> dict[str, list[Any]]:
        """Chat logprobs in the shape of the completions API; offsets count through the whole stream."""
        tokens = logprobs.get("content") or []
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token["token"])
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in token.get("top_logprobs", [])} for token in tokens
            ],
            "text_offset": offsets,
        }


def _leave_out_nulls(value: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in value and value[name] is None:
            del value[name]
