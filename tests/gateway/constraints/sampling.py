"""Answers drawn at random under a grammar, byte by byte, by the grammar backend that the engine uses."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import xgrammar

END = 256
CLOSING = frozenset(b'"}],:')
OPENING = frozenset(b"{[")


@cache
def compiler() -> Any:
    """For a vocabulary of all single bytes, so that every text can be written."""
    vocabulary = [bytes([value]) for value in range(END)] + [b"<end>"]
    info = xgrammar.TokenizerInfo(
        vocabulary, vocab_type=xgrammar.VocabType.RAW, vocab_size=END + 1, stop_token_ids=[END]
    )
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)


class Follower:
    """Follows one answer under a grammar, as the engine does."""

    def __init__(self, grammar: str) -> None:
        self._matcher = xgrammar.GrammarMatcher(compiler().compile_grammar(grammar))
        self._mask = xgrammar.allocate_token_bitmask(1, END + 1)

    def allowed(self) -> list[int]:
        self._matcher.fill_next_token_bitmask(self._mask, 0)
        bits = np.unpackbits(self._mask.numpy().view(np.uint8), bitorder="little")[: END + 1]
        return [int(token) for token in np.nonzero(bits)[0]]

    def take(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))


def accepts(grammar: str, text: str) -> bool:
    follower = Follower(grammar)
    return all(follower.take(byte) for byte in text.encode()) and follower.take(END)


def drawn(grammar: str, seed: int, length: int = 400) -> str | None:
    """A whole answer; None for one that is not over after `length` bytes."""
    follower, draw, text = Follower(grammar), random.Random(seed), bytearray()
    for _ in range(length):
        allowed = follower.allowed()
        assert allowed, f"nothing may follow {bytes(text)!r}"
        if END in allowed and (len(allowed) == 1 or draw.random() < 0.5):
            return text.decode()
        token = _chosen([each for each in allowed if each != END], draw)
        assert follower.take(token)
        text.append(token)
    return None


def _chosen(allowed: list[int], draw: random.Random) -> int:
    """Mostly what closes something, so that answers come to an end."""
    closing = [each for each in allowed if each in CLOSING]
    if closing and draw.random() < 0.6:
        return draw.choice(closing)
    return draw.choice([each for each in allowed if each not in OPENING or draw.random() < 0.2] or allowed)
