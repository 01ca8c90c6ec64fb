"""What callers may ask to be told besides the answer: the prompt, the raw output, what it took.

The engine reports all of it when it is asked to, so that nothing is tokenized or measured a second time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from gateway.metering import Tokens

REPORTED = (
    ("server-time-to-first-token", "time_to_first_token_ms"),
    ("prefill-queue-duration", "queue_time_ms"),
    ("generation-duration", "generation_time_ms"),
)
"""The API's name of a duration, and the engine's."""


@dataclass(frozen=True)
class Extras:
    """What one request asks to be told."""

    echo: bool = False
    """Of a chat: the prompt, as the model has read it, before the answer."""
    raw_output: bool = False
    perf_metrics: bool = False
    token_ids: bool = False
    new_logprobs: bool = False
    """Logprobs of a completion in the shape of a chat's."""

    @property
    def body(self) -> dict[str, Any]:
        """What the engine is asked for their sake."""
        asked = {}
        if self.echo or self.raw_output:
            asked["return_prompt_text"] = True
        if self.raw_output or self.new_logprobs:
            asked["return_token_ids"] = True
        return asked


@dataclass
class Raw:
    """What has come of one choice, as the model wrote it."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    begun: bool = False


class ExtraTeller:
    """Adds to the answer to one request what was asked for, before anything else is made of its text."""

    def __init__(self, extras: Extras, asked: Mapping[str, Any], tokens: Tokens) -> None:
        self._extras = extras
        self._asked = asked
        """The engine's request."""
        self._tokens = tokens
        self._started = time.monotonic()
        self._raw: defaultdict[int, Raw] = defaultdict(Raw)
        self._prompt_text = ""
        self._prompt_ids: dict[int, list[int]] = {}
        """By prompt."""
        self._offsets: defaultdict[int, int] = defaultdict(int)

    def see(self, answer: dict[str, Any]) -> None:
        """Take what the engine says of the whole request."""
        self._prompt_text = answer.get("prompt_text") or self._prompt_text
        if ids := answer.get("prompt_token_ids"):
            self._prompt_ids[0] = ids
        if not self._extras.token_ids:
            answer.pop("prompt_token_ids", None)

    def tell(self, choice: dict[str, Any], kind: str, *, is_last: bool) -> None:
        """Add to a choice, or to a piece of one. `kind` is where a chat has its text."""
        index = choice.get("index", 0)
        raw, ids = self._raw[index], choice.get("token_ids") or []
        if prompt_ids := choice.get("prompt_token_ids"):
            self._prompt_ids[self._prompt_of(index)] = prompt_ids
        message = choice.get(kind)
        raw.text += (choice.get("text") if message is None else message.get("content")) or ""
        raw.token_ids += ids
        if self._extras.new_logprobs and choice.get("logprobs"):
            choice["logprobs"] = self._new_logprobs(index, choice["logprobs"], ids)
        if self._extras.echo and not raw.begun and message is not None:
            message["content"] = self._prompt_text + (message.get("content") or "")
        raw.begun = True
        if self._extras.raw_output and is_last:
            choice["raw_output"] = self._raw_output(index, raw)
        if not self._extras.token_ids:
            choice.pop("token_ids", None)
            choice.pop("prompt_token_ids", None)

    def finish(self, answer: dict[str, Any]) -> None:
        """Add to the whole answer, or to a stream's last chunk, what it took."""
        if self._extras.perf_metrics:
            answer["perf_metrics"] = perf_metrics(self._tokens, time.monotonic() - self._started)

    def _prompt_of(self, index: int) -> int:
        return index // self._tokens.choices_per_prompt

    def _raw_output(self, index: int, raw: Raw) -> dict[str, Any]:
        number = self._prompt_of(index)
        told: dict[str, Any] = {
            "prompt_fragments": self._fragments(number),
            "prompt_token_ids": self._prompt_ids.get(number, []),
            "completion": raw.text,
            "completion_token_ids": raw.token_ids,
        }
        grammar = self._asked.get("structured_outputs", {}).get("grammar")
        return told | ({"grammar": grammar} if grammar else {})

    def _fragments(self, number: int) -> Sequence[str | int]:
        prompt = self._asked.get("prompt")
        if prompt is None:
            return [self._prompt_text]
        if isinstance(prompt, list) and not isinstance(prompt[0], int):
            prompt = prompt[number]
        return prompt if isinstance(prompt, list) else [prompt]

    def _new_logprobs(self, index: int, old: dict[str, Any], ids: list[int]) -> dict[str, Any]:
        tokens, offset = old["tokens"], self._offsets[index]
        if len(tokens) != len(ids):  # the prompt is told as well
            ids = [*self._prompt_ids.get(self._prompt_of(index), []), *ids]
        content = []
        rows = zip_longest(tokens, old["token_logprobs"], old.get("top_logprobs") or [], ids[: len(tokens)])
        for token, logprob, top, token_id in rows:
            entry = {**_told(token, logprob), "token_id": token_id, "text_offset": offset}
            content.append(entry | {"top_logprobs": [_told(*pair) for pair in (top or {}).items()]})
            offset += len(token)
        self._offsets[index] = offset
        return {"content": content}


def _told(token: str, logprob: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}


def perf_metrics(tokens: Tokens, seconds: float) -> dict[str, Any]:
    """Counts, and durations in seconds; what the engine does not report is left out."""
    told: dict[str, Any] = {
        "prompt-tokens": tokens.prompt,
        "cached-prompt-tokens": tokens.cached,
        "server-processing-time": round(seconds, 6),
    }
    for name, reported in REPORTED:
        value = tokens.seconds(reported)
        if value is not None:
            told[name] = value
    return told
