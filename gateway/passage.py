"""Chunks of a stream that need no shaping, passed on without being read as JSON.

An engine writes most of a stream's chunks in one form. For these the model's name, the usage and what is null
are exchanged in the bytes, which gives what `Shaper` would give. Whatever looks different in any way is left
to `Shaper`: nothing here decides what an answer means.
"""

from __future__ import annotations

import re

import msgspec

from gateway.dialect import EngineRequest
from gateway.metering import Tokens
from gateway.parameters import PASSED

PLAIN_FIELDS = (PASSED.keys() - {"n", "return_token_ids"}) | {
    "messages",
    "prompt",
    "max_tokens",
    "stream",
    "stream_options",
    "cache_salt",
    "structured_outputs",
    "vllm_xargs",
    "chat_template",
    "chat_template_kwargs",
}

_TEXT = rb'[^"\\\x00-\x1f]*+'
_STRING = rb'"' + _TEXT + rb'(?:\\(?:["\\/bfnrt]|u00[0-9a-fA-F]{2})' + _TEXT + rb')*+"'
_ABSENT = rb'(?:,"(?:stop_reason|token_ids|prompt_token_ids|service_tier)":null)*+'
HEAD = re.compile(
    rb'(data: \{"id":"'
    + _TEXT
    + rb'","object":"'
    + _TEXT
    + rb'","created":\d{1,10}+,"model":)"'
    + _TEXT
    + rb'"'
)
CHOICE = re.compile(
    rb'(,"choices":\[\{"index":0,'
    rb'(?:"delta":\{(?:"role":"assistant",)?"content":' + _STRING + rb'\}|"text":' + _STRING + rb")"
    rb',"logprobs":null,"finish_reason":null)' + _ABSENT + rb'\}\],"usage":\{"prompt_tokens":(\d{1,10}+),'
    rb'"total_tokens":\d{1,10}+,"completion_tokens":(\d{1,10}+)(?:,"completion_tokens_details":null)?\}'
    rb'(?:,"(?:prompt_token_ids|prompt_text)":null)*+\}\n\n',
)


def is_plain(request: EngineRequest) -> bool:
    """Whether a stream's chunks may be passed on: one choice, and nothing asked for that shapes them."""
    if request.calls is not None or not request.body.keys() <= PLAIN_FIELDS:
        return False
    return isinstance(request.body.get("prompt", ""), str)


class Passage:
    """Passes one stream's plain chunks on, and counts their tokens as `Shaper` does."""

    def __init__(self, model_name: str, tokens: Tokens) -> None:
        self._name = msgspec.json.encode(model_name)
        self._tokens = tokens
        self._head = self._told_head = b""
        """What all chunks of the stream begin with, the model included: as it comes, and as it is told."""

    def take(self, part: bytes) -> tuple[bytes, bytes]:
        """The chunks to send for the beginning of a part, and the rest of it, which is to be shaped."""
        if not self._head and (found := HEAD.match(part)):
            self._head, self._told_head = found[0], found[1] + self._name
        head, told_head, size = self._head, self._told_head, len(self._head)
        if not head:
            return b"", part
        taken: list[bytes] = []
        at, last = 0, None
        while part.startswith(head, at) and (found := CHOICE.match(part, at + size)):
            taken += (told_head, found[1], b'}],"usage":null}\n\n')
            at, last = found.end(), found
        if last is not None:
            counts = {"prompt_tokens": int(last[2]), "completion_tokens": int(last[3])}
            self._tokens.see_choice(0, counts)
        return b"".join(taken), part[at:]
