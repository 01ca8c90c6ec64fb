"""How a deployment may scale by itself, as its owner says it."""

from __future__ import annotations

import pytest

from tests.controlplane.test_deployments import PATH, change, create, refusal

SCHEDULE = {
    "minReplicaCount": 1,
    "schedule": "0 8 * * MON-FRI",
    "duration": "36000s",
    "timezone": "Europe/Berlin",
}
POLICY = {
    "scaleUpWindow": "5s",
    "scaleDownWindow": "0s",
    "scaleToZeroWindow": "300s",
    "loadTargets": {"default": 0.5, "requests_per_second": 2.5},
    "scalingSchedules": {"office": SCHEDULE},
}
SHOWN = {**POLICY, "scalingSchedules": {"office": {**SCHEDULE, "description": "", "disabled": False}}}


@pytest.fixture
def settings(settings, request):
    """A test may ask for the shortest window to zero that it is about."""
    shortest = getattr(request, "param", settings.shortest_window_to_zero_seconds)
    return settings.model_copy(update={"shortest_window_to_zero_seconds": shortest})


async def test_a_policy_is_kept_and_shown(api, base):
    made = (await create(api, "d", autoscalingPolicy=POLICY)).json()
    assert made["autoscalingPolicy"] == SHOWN
    assert (await api.get(f"{PATH}/d")).json()["autoscalingPolicy"] == SHOWN


async def test_without_a_policy_there_is_none_to_show(api, base):
    assert "autoscalingPolicy" not in (await create(api)).json()


async def test_a_part_of_the_policy_is_changed_and_the_engines_stay(api, base):
    await create(api, "d", autoscalingPolicy=POLICY)
    mask = "?updateMask=autoscaling_policy.scale_to_zero_window"
    body = {"autoscalingPolicy": {"scaleToZeroWindow": "600s"}}
    before = (await api.get(f"{PATH}/d")).json()
    changed = (await api.patch(f"{PATH}/d{mask}", json=body)).json()
    assert changed["autoscalingPolicy"] == {**SHOWN, "scaleToZeroWindow": "600s"}
    assert changed["state"] == before["state"]


async def test_a_policy_is_taken_away(api, base):
    await create(api, "d", autoscalingPolicy=POLICY)
    changed = (await api.patch(f"{PATH}/d?updateMask=autoscalingPolicy", json={})).json()
    assert "autoscalingPolicy" not in changed


REFUSED = [
    ({"scaleUpWindow": "3601s"}, "scaleUpWindow: must be from 0s to 3600s"),
    ({"scaleUpWindow": "-1s"}, "must be from 0s to 3600s"),
    ({"scaleDownWindow": "2h"}, 'must be a duration in seconds such as "600s"'),
    ({"scaleToZeroWindow": "299s"}, "scaleToZeroWindow: must be from 300s to"),
    ({"scaleToZeroWindow": "0s"}, "scaleToZeroWindow: must be from 300s to"),
    ({"scaleToZeroWindow": "31536001s"}, "scaleToZeroWindow: must be from 300s to 31536000s"),
    ({"loadTargets": {"default": 0}}, "default must be more than 0"),
    ({"loadTargets": {"defualt": 1}}, "'defualt' is none of default, concurrent_requests"),
    ({"loadTargets": {"default": "high"}}, "loadTargets"),
    ({"scalingSchedules": {str(n): SCHEDULE for n in range(6)}}, "scalingSchedules"),
    ({"scalingSchedules": {"s": {**SCHEDULE, "schedule": "@daily"}}}, "must have the five fields of cron"),
    ({"scalingSchedules": {"s": {**SCHEDULE, "schedule": "61 * * * *"}}}, "is not cron: bad minute"),
    ({"scalingSchedules": {"s": {**SCHEDULE, "timezone": "Mars/Base"}}}, "is not an IANA time zone"),
    ({"scalingSchedules": {"s": {**SCHEDULE, "timezone": "../etc/passwd"}}}, "is not an IANA time zone"),
    ({"scalingSchedules": {"s": {**SCHEDULE, "duration": "299s"}}}, "must be from 300s to 604800s"),
    ({"scalingSchedules": {"s": {**SCHEDULE, "duration": "300.5s"}}}, "must be whole seconds"),
    (
        {"scalingSchedules": {"s": {**SCHEDULE, "minReplicaCount": 2}}},
        "autoscalingPolicy.scalingSchedules.s.minReplicaCount 2 is more than maxReplicaCount 1",
    ),
    ({"scalingSchedules": {"s": {"minReplicaCount": 1}}}, "schedule"),
    ({"scaleSideways": "1s"}, "scaleSideways"),
]


@pytest.mark.parametrize(("policy", "words"), REFUSED)
async def test_what_cannot_be_is_refused_with_its_reason(api, base, policy, words):
    status, code, message = refusal(await create(api, autoscalingPolicy=policy))
    assert (status, code) == (400, 3)
    assert words in message


async def test_lowering_the_maximum_below_a_schedule_is_refused(api, base):
    more = {**SCHEDULE, "minReplicaCount": 3}
    await create(api, "d", maxReplicaCount=3, autoscalingPolicy={"scalingSchedules": {"s": more}})
    answer = await api.patch(f"{PATH}/d", json={"maxReplicaCount": 2})
    assert "minReplicaCount 3 is more than maxReplicaCount 2" in refusal(answer)[2]


async def test_a_window_that_was_allowed_once_stays_until_another_one_is_wanted(api, db, base):
    await create(api, "d")
    change(db, autoscaling_policy={"scale_to_zero_window": "5s"})
    renamed = await api.patch(f"{PATH}/d", json={"displayName": "Mine"})
    assert renamed.json()["autoscalingPolicy"]["scaleToZeroWindow"] == "5s"
    faster = {"autoscalingPolicy": {"scaleUpWindow": "0s", "scaleToZeroWindow": "5s"}}
    assert (await api.patch(f"{PATH}/d", json=faster)).status_code == 200
    shorter = {"autoscalingPolicy": {"scaleToZeroWindow": "4s"}}
    assert "must be from 300s" in refusal(await api.patch(f"{PATH}/d", json=shorter))[2]


@pytest.mark.parametrize("settings", [2.5], indirect=True)
async def test_an_operator_may_allow_shorter_windows(api, base):
    made = await create(api, autoscalingPolicy={"scaleToZeroWindow": "2.500s"})
    assert made.json()["autoscalingPolicy"]["scaleToZeroWindow"] == "2.5s"
    refused = await create(api, "e", autoscalingPolicy={"scaleToZeroWindow": "2s"})
    assert "scaleToZeroWindow: must be from 2.5s to" in refusal(refused)[2]
