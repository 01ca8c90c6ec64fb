"""What usage costs: prices are configuration (`HEARTH_PRICES`), and costs are whole nano-dollars."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NANOS = 1_000_000_000
"""Of a dollar."""
MILLION = 1_000_000
MS_PER_HOUR = 3_600_000
DEFAULT = "default"
CPU = "CPU"
"""Among accelerators, a replica that runs without any."""

Dollars = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class TokenPrices(BaseModel):
    """Dollars for a million tokens of each sort."""

    model_config = ConfigDict(extra="forbid")

    prompt: Dollars = Decimal(0)
    cached_prompt: Annotated[Dollars | None, Field(alias="cachedPrompt")] = None
    """Of prompt tokens that were in the cache; the price of the others unless given."""
    completion: Dollars = Decimal(0)

    def cost(self, prompt: int, cached: int, completion: int) -> int:
        """In nano-dollars; `cached` of the `prompt` tokens were in the cache."""
        cached = min(cached, prompt)
        cached_price = self.prompt if self.cached_prompt is None else self.cached_prompt
        dollars = (prompt - cached) * self.prompt + cached * cached_price + completion * self.completion
        return nanos(dollars / MILLION)


class Prices(BaseModel):
    """The price list. What is not priced costs nothing, and is metered all the same."""

    model_config = ConfigDict(extra="forbid")

    tokens: dict[str, TokenPrices] = {}
    """By the full name of the model, or `default`."""
    accelerator_hours: Annotated[dict[str, Dollars], Field(alias="acceleratorHours")] = {}
    """Dollars for an hour of one GPU, by its type, or `default`; `CPU` is a replica without one."""
    reserved_accelerator_hours: Annotated[dict[str, Dollars], Field(alias="reservedAcceleratorHours")] = {}
    trained_tokens: Annotated[dict[str, Dollars], Field(alias="trainedTokens")] = {}
    """Dollars for a million trained tokens, by the full name of the base model, or `default`."""

    def of_tokens(self, model: str, prompt: int, cached: int, completion: int) -> int:
        prices = self.tokens.get(model) or self.tokens.get(DEFAULT)
        return prices.cost(prompt, cached, completion) if prices else 0

    def of_replica(self, accelerator_type: str, count: int, reserved: int, ms: int) -> int:
        """An interval of a replica that holds `count` GPUs, `reserved` of which are reserved ones."""
        if not count:
            return nanos(self.accelerator_hours.get(CPU, Decimal(0)) * ms / MS_PER_HOUR)
        on_demand = _price(self.accelerator_hours, accelerator_type)
        own = _price(self.reserved_accelerator_hours, accelerator_type)
        return nanos(((count - reserved) * on_demand + reserved * own) * ms / MS_PER_HOUR)

    def of_training(self, base_model: str, tokens: int) -> int:
        return nanos(_price(self.trained_tokens, base_model) * tokens / MILLION)


def _price(prices: dict[str, Decimal], key: str) -> Decimal:
    return prices.get(key, prices.get(DEFAULT, Decimal(0)))


def nanos(dollars: Decimal) -> int:
    """To the nearest nano-dollar; a half goes to the even one, so that sums do not drift."""
    return int((dollars * NANOS).to_integral_value(ROUND_HALF_EVEN))


def in_dollars(cost_nanos: int) -> str:
    """`$12.50` in a sentence: cents, rounded down, so that nothing reads like a limit it has not reached."""
    cents = cost_nanos * 100 // NANOS
    return f"${cents // 100:,}.{cents % 100:02}"
