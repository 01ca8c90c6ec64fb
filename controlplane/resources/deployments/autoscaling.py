"""How a deployment may scale by itself: what its owner asks for, and what is allowed."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, field_validator
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import now
from controlplane.errors import invalid
from controlplane.rest.durations import format_duration
from controlplane.rest.schema import ApiModel, Duration

LOAD_TARGETS = (
    "default",
    "concurrent_requests",
    "requests_per_second",
    "tokens_generated_per_second",
    "prompt_tokens_per_second",
)
DEFAULT_LOAD_TARGETS = {"default": 0.8}
DEFAULT_SCALE_UP_WINDOW = timedelta(seconds=30)
DEFAULT_SCALE_DOWN_WINDOW = timedelta(minutes=10)
DEFAULT_SCALE_TO_ZERO_WINDOW = timedelta(hours=1)
LONGEST_WINDOW = timedelta(hours=1)
SHORTEST_WINDOW_TO_ZERO = "shortest window to zero"
"""In a session's `info`: what the platform has at least of it."""
LONGEST_WINDOW_TO_ZERO = timedelta(days=365)
MAX_SCHEDULES = 5
SHORTEST_SCHEDULE = timedelta(minutes=5)
LONGEST_SCHEDULE = timedelta(days=7)


class Within:
    """Of a duration: its bounds, both included."""

    def __init__(self, least: timedelta, most: timedelta) -> None:
        self.least, self.most = least, most

    def __call__(self, value: timedelta) -> timedelta:
        if not self.least <= value <= self.most:
            raise ValueError(f"must be from {format_duration(self.least)} to {format_duration(self.most)}")
        return value


Window = Annotated[Duration, AfterValidator(Within(timedelta(0), LONGEST_WINDOW))]


class ScalingSchedule(ApiModel):
    """A time in which there are at least so many replicas; of several that overlap the largest number."""

    min_replica_count: Annotated[int, Field(ge=0)] = Field(description="At most maxReplicaCount.")
    schedule: str = Field(
        description="When it begins: five fields of cron, read in the time zone.",
        examples=["0 8 * * MON-FRI"],
    )
    duration: Annotated[Duration, AfterValidator(Within(SHORTEST_SCHEDULE, LONGEST_SCHEDULE))] = Field(
        description="How long it lasts; whole seconds.", examples=["36000s"]
    )
    timezone: str = Field(description="An IANA name.", examples=["Europe/Berlin"])
    description: str = ""
    disabled: bool = False

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError("must have the five fields of cron: minute, hour, day, month, weekday")
        try:
            CronSim(value, now())
        except CronSimError as error:
            raise ValueError(f"is not cron: {str(error)[:1].lower()}{str(error)[1:]}") from None
        return value

    @field_validator("duration")
    @classmethod
    def _is_whole(cls, value: timedelta) -> timedelta:
        if value.microseconds:
            raise ValueError("must be whole seconds")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin") from None
        return value


class AutoscalingPolicy(ApiModel):
    """What is unset has its default: 30s, 600s, 3600s and `{"default": 0.8}`."""

    scale_up_window: Window | None = Field(
        default=None, description="How long the load has to be above the target before replicas are added."
    )
    scale_down_window: Window | None = Field(
        default=None, description="How long it has to be below before replicas are taken away."
    )
    scale_to_zero_window: Duration | None = Field(
        default=None,
        description="How long without a request before there are none; only with minReplicaCount 0. At "
        "least 300s, unless the platform is set up for less.",
    )
    load_targets: dict[str, float] = Field(
        default_factory=dict,
        description="The load that one replica is meant for. `default` is a fraction of the requests that an "
        "engine answers at a time; the others are `concurrent_requests`, `requests_per_second`, "
        "`tokens_generated_per_second` and `prompt_tokens_per_second`. The one that asks for most counts.",
        examples=[{"default": 0.8}],
    )
    scaling_schedules: Annotated[dict[str, ScalingSchedule], Field(max_length=MAX_SCHEDULES)] = Field(
        default_factory=dict, description="By a name of one's own."
    )

    @field_validator("load_targets")
    @classmethod
    def _are_targets(cls, value: dict[str, float]) -> dict[str, float]:
        for name, target in value.items():
            if name not in LOAD_TARGETS:
                raise ValueError(f"{name!r} is none of {', '.join(LOAD_TARGETS)}")
            if not (math.isfinite(target) and target > 0):
                raise ValueError(f"{name} must be more than 0")
        return value

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self | None:
        return cls.model_validate(stored) if stored else None

    def stored(self) -> dict[str, Any]:
        """What is set of it, as JSON."""
        return self.model_dump(mode="json", by_alias=False, exclude_defaults=True)


def refuse_schedules_above(policy: AutoscalingPolicy | None, most: int) -> None:
    """400 for a schedule that asks for more replicas than there may be."""
    for name, schedule in (policy.scaling_schedules if policy else {}).items():
        if schedule.min_replica_count > most:
            field = f"autoscalingPolicy.scalingSchedules.{name}.minReplicaCount"
            raise invalid(f"{field} {schedule.min_replica_count} is more than maxReplicaCount {most}", field)


def refuse_window_to_zero(
    session: AsyncSession, policy: AutoscalingPolicy | None, before: AutoscalingPolicy | None = None
) -> None:
    """400 for a window shorter than the platform's shortest, or longer than a year.

    One that was there `before` may stay: the platform's bound may have been raised above it since.
    """
    window = policy.scale_to_zero_window if policy else None
    if window is None or (before and window == before.scale_to_zero_window):
        return
    field = "autoscalingPolicy.scaleToZeroWindow"
    try:
        Within(session.info[SHORTEST_WINDOW_TO_ZERO], LONGEST_WINDOW_TO_ZERO)(window)
    except ValueError as error:
        raise invalid(f"{field}: {error}", field) from None
