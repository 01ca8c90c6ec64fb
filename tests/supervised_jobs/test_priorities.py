"""Jobs of the older collection in the queue: priorities, pausing, cancelling, and their quota."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.resources.fine_tuning_jobs.queueing import PRIORITY_STEP
from controlplane.resources.fine_tuning_jobs.states import PLACED
from tests.supervised_jobs.paths import ACCOUNT, SEED_CHATS, SEED_JOBS


@pytest.fixture
async def made(api):
    """A new job of the older collection with a priority, by its path."""
    answer = await api.post(f"{SEED_JOBS}?fineTuningJobId=job", json={**SEED_CHATS, "priority": 10})
    assert answer.status_code == 200, answer.text
    return f"{SEED_JOBS}/job"


async def test_a_priority_moves_a_job_ahead_of_its_time(api, made, put):
    assert (await api.get(made)).json()["priority"] == 10
    row = put("job")
    ahead = row.create_time - row.queue_time
    assert abs(ahead - 10 * PRIORITY_STEP) < timedelta(seconds=5)
    listed = await api.get(SEED_JOBS, params={"filter": "priority > 5", "orderBy": "priority desc"})
    assert [job["priority"] for job in listed.json()["fineTuningJobs"]] == [10]


async def test_a_priority_is_changed_while_the_job_waits(api, made, put):
    before = put("job", state="PENDING").queue_time
    answer = await api.patch(made, json={"priority": -5})
    assert (answer.status_code, answer.json()["priority"]) == (200, -5)
    assert put("job").queue_time == before + 15 * PRIORITY_STEP
    put("job", state="PAUSED")
    assert (await api.patch(made, json={"priority": 0})).status_code == 200


@pytest.mark.parametrize("state", ["RUNNING", "WRITING_RESULTS", "COMPLETED", "FAILED", "CANCELLED"])
async def test_a_priority_that_would_change_nothing_is_refused(api, made, put, state):
    put("job", state=state)
    answer = await api.patch(made, json={"priority": 11})
    assert (answer.status_code, answer.json()["code"]) == (400, 9)
    assert "it has left the queue" in answer.json()["message"]
    assert (await api.patch(made, json={"priority": 10, "displayName": "x"})).status_code == 200


@pytest.mark.parametrize("priority", [-101, 101, 1.5, "high"])
async def test_a_priority_out_of_its_range_is_refused_by_name(api, priority):
    answer = await api.post(SEED_JOBS, json={**SEED_CHATS, "priority": priority})
    assert answer.status_code == 400
    assert "priority" in answer.json()["message"]


async def test_a_job_of_the_older_collection_is_paused_cancelled_and_resumed(api, made, put):
    for verb, state, shown in (
        ("pause", "PAUSING", "RUNNING"),
        ("resume", "RESUMING", "PENDING"),
        ("cancel", "CANCELLING", "RUNNING"),
    ):
        answer = await api.post(f"{made}:{verb}", json={})
        assert answer.status_code == 200, answer.text
        assert put("job").state == state
        assert (await api.get(made)).json()["state"] == shown
    put("job", state="PAUSED")
    assert (await api.get(made)).json()["state"] == "PAUSED"
    listed = await api.get(SEED_JOBS, params={"filter": "state = PAUSED"})
    assert listed.json()["totalSize"] == 1


async def test_jobs_at_work_count_for_their_quota(api, made, put):
    quota = f"{ACCOUNT}/quotas/running-fine-tuning-jobs"
    assert (await api.get(quota)).json()["usage"] == 0
    for state in PLACED:
        put("job", state=state)
        assert (await api.get(quota)).json()["usage"] == 1
