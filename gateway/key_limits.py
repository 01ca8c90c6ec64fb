"""What one API key may use of what its account may: counted as the account's quotas are, under its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from controlplane.resources.quotas.limits import Limit, used_up_text
from gateway.errors import GatewayError, key_used_up

REQUESTS, TOKENS, CONCURRENT = "requestsPerMinute", "tokensPerMinute", "concurrentRequests"
TOGETHER = "together"
"""The kind of tokens that keys are held to: of prompts and answers."""


@dataclass(frozen=True)
class KeyLimit(Limit):
    key_id: str = ""


@lru_cache(maxsize=10_000)
def limit_of_key(key_id: str, field: str, value: int) -> KeyLimit:
    return KeyLimit(counted_as(key_id), field, value, value, key_id=key_id)


def counted_as(key_id: str) -> str:
    """In the place of an account's id, and no id."""
    return f"key/{key_id}"


def used_up(limit: Limit, what: str, used: str, models: Sequence[str], wait: int) -> GatewayError:
    """429 for an account's quota or a key's limit. It reads "at most 5 {what}, and {used}"."""
    if isinstance(limit, KeyLimit):
        return key_used_up(limit.key_id, limit.id, limit.value, f"{what}, and {used}", wait)
    text = used_up_text(limit, f"{limit.value:,} {what}", used, models, len(models))
    return GatewayError(429, "RESOURCE_EXHAUSTED", text, headers={"Retry-After": str(wait)})
