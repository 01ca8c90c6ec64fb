"""Amounts of money as the API writes them: whole units, and billionths of one."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_CURRENCY = "USD"


def amount(money: Mapping[str, Any] | None) -> Decimal:
    """The exact amount; 0 when there is none."""
    units, nanos = (money or {}).get("units") or 0, (money or {}).get("nanos") or 0
    return Decimal(str(units)) + Decimal(str(nanos)) / 10**9


def dollars(money: Mapping[str, Any] | None) -> str:
    """`USD 12.50`; what is less than a cent keeps the digits that say how much it is."""
    return _shown(amount(money), str((money or {}).get("currencyCode") or _CURRENCY))


def total(amounts: Iterable[Mapping[str, Any] | None]) -> str:
    """The sum, exact before it is written."""
    return _shown(sum(map(amount, amounts), Decimal(0)), _CURRENCY)


def _shown(exact: Decimal, currency: str) -> str:
    cents = exact.quantize(Decimal("0.01"))
    return f"{currency} {cents if cents or not exact else exact.normalize():f}"
