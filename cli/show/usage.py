"""Usage as flat rows: of every day, what each model, deployment and job used and cost."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.connection.session import Session
from cli.language import moments
from cli.show.money import amount

# The original's columns come first. What stands for nothing here stays empty.
COLUMNS = (
    "email",
    "start_time",
    "end_time",
    "usage_type",
    "accelerator_type",
    "accelerator_seconds",
    "base_model_name",
    "model_bucket",
    "parameter_count",
    "prompt_tokens",
    "completion_tokens",
    "cached_prompt_tokens",
    "request_count",
    "deployment_name",
    "replica_seconds",
    "reserved_accelerator_seconds",
    "job_name",
    "trained_tokens",
    "cost_usd",
)
LISTS = ("serverlessCosts", "dedicatedCosts", "dedicatedTokens", "trainingCosts")
_DIMENSIONS = ("model_name", "deployment_name", "accelerator_type", "base_model", "job_name")
_NUMBERS = {
    "acceleratorSeconds": "accelerator_seconds",
    "promptTokens": "prompt_tokens",
    "completionTokens": "completion_tokens",
    "cachedPromptTokens": "cached_prompt_tokens",
    "requestCount": "request_count",
    "replicaSeconds": "replica_seconds",
    "reservedAcceleratorSeconds": "reserved_accelerator_seconds",
    "tokens": "trained_tokens",
}
_MOST_DAYS = 31  # of one request


def usage_rows(session: Session, start: datetime, end: datetime, email: str) -> Iterator[dict[str, str]]:
    """Rows with all of COLUMNS, day by day."""
    for first, last in _spans(start, end):
        usage = session.client.get(
            f"accounts/{session.account_id}/billingUsage",
            {
                "startTime": moments.stamp(first),
                "endTime": moments.stamp(last),
                "groupBy": ",".join(_DIMENSIONS),
            },
        )
        found = [_row(used, email) for key in LISTS for used in usage.get(key) or []]
        yield from sorted(found, key=lambda row: row["start_time"])


def _spans(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Parts that one request may ask for, which end at midnight so that no day is in two of them."""
    while start < end:
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
        last = min(midnight + timedelta(days=_MOST_DAYS), end)
        yield start, last
        start = last


def _row(used: Mapping[str, Any], email: str) -> dict[str, str]:
    group = used.get("group") or {}
    facts = {
        "email": email,
        "start_time": _time(used.get("startTime")),
        "end_time": _time(used.get("endTime")),
        "usage_type": str(used.get("usageType") or ""),
        "base_model_name": str(group.get("base_model") or group.get("model_name") or ""),
        "cost_usd": f"{amount(used.get('totalCost')):f}",
    }
    named = {key: str(group.get(key) or "") for key in ("accelerator_type", "deployment_name", "job_name")}
    counted = {column: str(used[key]) for key, column in _NUMBERS.items() if key in used}
    return {**dict.fromkeys(COLUMNS, ""), **facts, **named, **counted}


def _time(stamp: Any) -> str:
    """`2030-01-31 00:00:00 UTC`."""
    if not stamp:
        return ""
    return f"{datetime.fromisoformat(str(stamp)).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
