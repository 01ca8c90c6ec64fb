"""Schedules: how many replicas a deployment has at least at a moment. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from controlplane.resources.deployments.autoscaling import ScalingSchedule


def scheduled_floor(schedules: Iterable[ScalingSchedule], now: datetime) -> int:
    """The largest number of the schedules that are on now; 0 when none is."""
    return max((one.min_replica_count for one in schedules if is_on(one, now)), default=0)


def is_on(schedule: ScalingSchedule, now: datetime) -> bool:
    """Whether it began within its duration before `now`, in its own time zone."""
    if schedule.disabled:
        return False
    local = now.astimezone(ZoneInfo(schedule.timezone))
    # Looking back finds what lies before a moment, and a schedule that begins now is on.
    began = next(CronSim(schedule.schedule, local + timedelta(seconds=1), reverse=True), None)
    # Compared as moments: a wall clock that was put back would count an hour twice.
    return began is not None and now.timestamp() - began.timestamp() < schedule.duration.total_seconds()
