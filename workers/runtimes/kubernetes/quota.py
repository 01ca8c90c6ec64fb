"""Whether an account's ResourceQuota has room for another pod. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from controlplane.sizing import quantity_bytes

SHORT_NAMES = ("cpu", "memory")
"""In a quota, these without a prefix are requests too."""
WORDS = ("requested", "used", "limited")


def shortage(quota: Mapping[str, Any], resources: Mapping[str, Any]) -> str:
    """What the quota lacks for a container's resources, in the cluster's words; empty where there is room."""
    asked, status = _asked(resources), quota.get("status") or {}
    hard, used = status.get("hard") or quota["spec"]["hard"], status.get("used") or {}
    short = [
        name
        for name, wanted in asked.items()
        if name in hard and _number(used.get(name)) + _number(wanted) > _number(hard[name])
    ]
    if not short:
        return ""
    said = (f"{what}: {_list(short, of)}" for what, of in zip(WORDS, (asked, used, hard), strict=True))
    return f"exceeded quota: {quota['metadata']['name']}, {', '.join(said)}"


def _number(quantity: Any) -> Decimal:
    return quantity_bytes(str(quantity or "0"))


def _list(names: list[str], amounts: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={amounts.get(name) or '0'}" for name in names)


def _asked(resources: Mapping[str, Any]) -> dict[str, str]:
    found = {"pods": "1"}
    for name, amount in resources["requests"].items():
        found[f"requests.{name}"] = amount
        if name in SHORT_NAMES:
            found[name] = amount
    return found | {f"limits.{name}": amount for name, amount in resources["limits"].items()}
