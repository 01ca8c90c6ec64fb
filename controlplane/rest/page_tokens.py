"""Page tokens: where a page ended, signed, and good for the query that they were given for only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.errors import invalid
from controlplane.rest.filters.fields import Kind
from controlplane.rest.ordering import Term

SIGNATURE_BYTES = 16
QUERY_BYTES = 12
MICROSECOND = timedelta(microseconds=1)

WRITERS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TIME: datetime.isoformat,
    Kind.DURATION: lambda value: value // MICROSECOND,
    Kind.UID: str,
}
READERS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TIME: datetime.fromisoformat,
    Kind.DURATION: lambda value: timedelta(microseconds=value),
    Kind.UID: uuid.UUID,
}


@dataclass(frozen=True)
class TokenSigner:
    """Makes and reads the tokens of one query; all api processes of a platform have the same key."""

    key: bytes
    query: str
    """What the token is bound to: the path, and the parameters that choose and order the rows."""

    def write(self, terms: Sequence[Term], position: Sequence[Any]) -> str:
        """The token for the rows after the one with these values of the order's terms."""
        values = [_convert(WRITERS, term, value) for term, value in zip(terms, position, strict=True)]
        body = self._query_digest() + json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(body) + body).decode().rstrip("=")

    def read(self, token: str, terms: Sequence[Term]) -> list[Any]:
        """The position that `write` was given; 400 for what this platform did not give for this query."""
        try:
            raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        signature, body = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(body)):
            raise invalid(
                "pageToken is not one that this platform gave; start with the first page", "pageToken"
            )
        if body[:QUERY_BYTES] != self._query_digest():
            text = "pageToken belongs to another list; between pages only pageSize and readMask may change"
            raise invalid(text, "pageToken")
        values = json.loads(body[QUERY_BYTES:])
        return [_convert(READERS, term, value) for term, value in zip(terms, values, strict=True)]

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, "sha256")[:SIGNATURE_BYTES]

    def _query_digest(self) -> bytes:
        return hashlib.sha256(self.query.encode()).digest()[:QUERY_BYTES]


def _convert(converters: dict[Kind, Callable[[Any], Any]], term: Term, value: Any) -> Any:
    convert = converters.get(term.field.kind)
    return value if value is None or convert is None else convert(value)
