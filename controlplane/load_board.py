"""The load board: what each gateway says of the load it carries, in Valkey, for the autoscaler to add up.

A gateway writes all its deployments in one value that lives for some seconds, so that no clock of one
machine is compared with another's. A gateway that ends takes itself off the board. One that falls silent
without that is missed for some minutes: until then the sum is known to be too small.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

GATEWAYS = "hearth:load:gateways"
FRESH_SECONDS = 10
"""How long a gateway's figures count."""
MISSED_SECONDS = 600
"""How long a gateway that fell silent is missed."""

OnBoard = Mapping[uuid.UUID, "GatewayLoad"]


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """One deployment's load at one gateway; all but `waiting` over the last seconds."""

    concurrent: float = 0.0
    waiting: int = 0
    requests_per_second: float = 0.0
    tokens_generated_per_second: float = 0.0
    prompt_tokens_per_second: float = 0.0
    quiet_seconds: float | None = None
    """Since the last request began; None when this gateway has seen none."""


@dataclass(frozen=True)
class Board:
    """Everybody's figures added up. `whole` is False while a gateway is missed."""

    loads: OnBoard = field(default_factory=dict)
    whole: bool = True


def figures_key(gateway_id: str) -> str:
    return f"hearth:load:{gateway_id}"


def known_key(gateway_id: str) -> str:
    return f"hearth:load:{gateway_id}:known"


def encode(loads: OnBoard) -> bytes:
    return msgspec.json.encode({str(uid): load for uid, load in loads.items()})


def decode(content: bytes) -> OnBoard:
    found = msgspec.json.decode(content, type=dict[str, GatewayLoad])
    return {uuid.UUID(uid): load for uid, load in found.items()}


def read_board(valkey: Any) -> Board | None:
    """The board as it is now, read with a synchronous client; None when no gateway says anything."""
    ids = sorted(name.decode() for name in valkey.smembers(GATEWAYS))
    if not ids:
        return None
    figures = valkey.mget([figures_key(name) for name in ids])
    known = valkey.mget([known_key(name) for name in ids])
    gone = [
        name for name, one, other in zip(ids, figures, known, strict=True) if one is None and other is None
    ]
    if gone:
        valkey.srem(GATEWAYS, *gone)
    fresh = [decode(content) for content in figures if content is not None]
    return Board(added(fresh), len(fresh) + len(gone) == len(ids)) if fresh else None


def added(boards: Iterable[OnBoard]) -> OnBoard:
    total: dict[uuid.UUID, GatewayLoad] = {}
    for board in boards:
        for uid, load in board.items():
            total[uid] = _sum(total[uid], load) if uid in total else load
    return total


def _sum(one: GatewayLoad, other: GatewayLoad) -> GatewayLoad:
    quiet = [seconds for seconds in (one.quiet_seconds, other.quiet_seconds) if seconds is not None]
    return GatewayLoad(
        one.concurrent + other.concurrent,
        one.waiting + other.waiting,
        one.requests_per_second + other.requests_per_second,
        one.tokens_generated_per_second + other.tokens_generated_per_second,
        one.prompt_tokens_per_second + other.prompt_tokens_per_second,
        min(quiet, default=None),
    )
