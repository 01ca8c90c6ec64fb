"""Vectors and scores in the shapes that callers read. They are never streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.answers import MalformedAnswer
from gateway.errors import GatewayError
from gateway.passage import Passage
from gateway.voices import Asked


class WholeVoice:
    """What the voices have in common that tell everything at once."""

    keep_alive = b""
    passage: Passage | None = None

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def tell(self, event: dict[str, Any]) -> Iterator[bytes]:
        raise MalformedAnswer

    def end(self) -> bytes:
        raise MalformedAnswer

    def fail(self, error: GatewayError) -> bytes:
        return msgspec.json.encode(error.body)

    def _encode(self, answer: dict[str, Any], shaped: dict[str, Any]) -> bytes:
        usage = answer.get("usage")
        self._asked.tokens.see_total(usage if isinstance(usage, dict) else {})
        counted = self._asked.tokens.prompt
        named = {"object": "list", "model": self._asked.route.model.name}
        return msgspec.json.encode(
            {**named, **shaped, "usage": {"prompt_tokens": counted, "total_tokens": counted}}
        )


class EmbeddingVoice(WholeVoice):
    def whole(self, answer: dict[str, Any]) -> bytes:
        found = answer.get("data")
        if not isinstance(found, list):
            raise MalformedAnswer
        return self._encode(answer, {"data": found})


class RerankVoice(WholeVoice):
    def whole(self, answer: dict[str, Any]) -> bytes:
        found = answer.get("results")
        if not isinstance(found, list):
            raise MalformedAnswer
        documents = self._asked.request.body["documents"]
        wanted = self._asked.sent.get("return_documents") is not False
        try:
            results = [
                {"index": each["index"], "relevance_score": each["relevance_score"]}
                | ({"text": documents[each["index"]]} if wanted else {})
                for each in found
            ]
        except (KeyError, TypeError, IndexError):
            raise MalformedAnswer from None
        return self._encode(answer, {"results": results})
