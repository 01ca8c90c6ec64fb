"""Refusals of a chat in the words of the dialect that was translated into it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.errors import GatewayError

Words = Iterable[tuple[re.Pattern[str], str]]
"""What names a field of a chat → the field that the caller knows."""


def in_words(error: GatewayError, words: Words) -> GatewayError:
    message, param = error.message, error.param
    for pattern, word in words:
        message, param = pattern.sub(word, message), pattern.sub(word, param) if param else param
    return GatewayError(
        error.status, error.code, message, param=param, kind=error.kind, headers=error.headers
    )
