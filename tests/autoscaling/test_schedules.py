"""When schedules are on."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from controlplane.resources.deployments.autoscaling import ScalingSchedule
from workers.autoscaling.schedules import is_on, scheduled_floor


def office_hours(**changes: object) -> ScalingSchedule:
    return ScalingSchedule.model_validate(
        {
            "minReplicaCount": 2,
            "schedule": "0 9 * * MON-FRI",
            "duration": "28800s",
            "timezone": "Europe/Berlin",
            **changes,
        }
    )


FRIDAY = "2026-11-20T"
MOMENTS = [
    (f"{FRIDAY}08:59:59+01:00", False),
    (f"{FRIDAY}09:00:00+01:00", True),
    (f"{FRIDAY}09:00:30+01:00", True),
    (f"{FRIDAY}16:59:59+01:00", True),
    (f"{FRIDAY}17:00:00+01:00", False),
    (f"{FRIDAY}08:00:00+00:00", True),
    ("2026-11-21T10:00:00+01:00", False),
    ("2026-07-10T07:30:00+00:00", True),
]


@pytest.mark.parametrize(("moment", "on"), MOMENTS)
def test_a_schedule_is_on_in_its_own_time_zone(moment: str, on: bool) -> None:
    assert is_on(office_hours(), datetime.fromisoformat(moment)) is on


def test_a_disabled_schedule_is_never_on() -> None:
    assert not is_on(office_hours(disabled=True), datetime.fromisoformat(f"{FRIDAY}10:00:00+01:00"))


def test_of_schedules_that_overlap_the_largest_number_counts() -> None:
    moment = datetime.fromisoformat(f"{FRIDAY}10:00:00+01:00")
    more = office_hours(minReplicaCount=5, schedule="30 9 * * *", duration="3600s")
    assert scheduled_floor([office_hours(), more], moment) == 5
    assert scheduled_floor([office_hours(), more], moment + timedelta(hours=2)) == 2
    assert scheduled_floor([], moment) == 0


def test_the_hour_that_a_clock_is_put_back_counts_once() -> None:
    """A four-hour schedule at 01:00 on 25 October in Berlin ends at 04:00, since 02:00 comes twice."""
    night = office_hours(schedule="0 1 * * *", duration="14400s")
    assert is_on(night, datetime.fromisoformat("2026-10-25T03:59:00+01:00"))
    assert not is_on(night, datetime.fromisoformat("2026-10-25T04:00:00+01:00"))
