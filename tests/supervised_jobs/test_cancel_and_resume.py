"""Supervised fine-tuning jobs that are cancelled and resumed: what is asked for, and when it is refused."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import delete, select

from controlplane.bootstrap import ensure_account
from controlplane.names import ResourceName
from controlplane.resources.fine_tuning_jobs import jobs
from controlplane.resources.fine_tuning_jobs.states import (
    ACTIVE,
    CANCELLABLE,
    PAUSABLE,
    PAUSED,
    SEED_NAMES,
    SHOWN,
    TRANSITIONS,
    job_state,
)
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, GarbageRow, ModelRow
from tests.locks import is_anybody_waiting
from tests.supervised_jobs.paths import ACCOUNT, CHATS, JOBS

ENDED = [state for state in TRANSITIONS if state not in ACTIVE]


async def test_every_state_has_a_name_in_both_collections(api, job, put):
    seed = {"CREATING", "PENDING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "DELETING"}
    for state in TRANSITIONS:
        put("job", state=state)
        shown = f"JOB_STATE_{SHOWN.get(state, state)}"
        assert (await api.get(job)).json()["state"] == shown
        listed = await api.get(JOBS, params={"filter": f"state = {shown}"})
        assert [found["state"] for found in listed.json()[JOBS.rpartition("/")[2]]] == [shown]
        assert SEED_NAMES.get(state, state) in seed


async def test_a_job_is_cancelled_at_once_and_twice_is_once(api, job, put):
    for state in CANCELLABLE:
        put("job", state=state, next_reconcile_at=None, lease_claims=3)
        for _ in range(2):
            answer = await api.post(f"{job}:cancel", json={})
            assert (answer.status_code, answer.json()) == (200, {})
            assert (await api.get(job)).json()["state"] == "JOB_STATE_CANCELLING"
        row = put("job")
        assert (row.next_reconcile_at is not None, row.lease_claims) == (True, 0)


async def test_a_job_that_is_over_is_not_cancelled(api, job, put):
    for state in [*ENDED, "WRITING_RESULTS"]:
        put("job", state=state)
        answer = await api.post(f"{job}:cancel", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, 9)
        assert answer.json()["message"] == f"cannot cancel job in state: JOB_STATE_{state}"


@pytest.mark.parametrize(
    "over",
    [
        {"state": "CANCELLED"},
        {"state": "PAUSED"},
        {"state": "PAUSING"},
        {"state": "FAILED", "status_code": "INTERNAL", "reason": "CRASHED"},
    ],
)
async def test_a_job_that_was_cut_short_is_resumed(api, job, put, over):
    put("job", **over, crashes=2, attempt=3, next_reconcile_at=None, result={"outcome": "failed"})
    answer = await api.post(f"{job}:resume", json={})
    assert answer.json()["state"] == "JOB_STATE_PENDING"
    row = put("job")
    assert (row.crashes, row.attempt, row.result, row.end_time) == (0, 3, {}, None)
    assert row.next_reconcile_at is not None
    again = await api.post(f"{job}:resume")
    assert again.json()["message"] == "cannot resume job in state: JOB_STATE_PENDING"


async def test_a_job_that_was_not_cut_short_is_not_resumed(api, job, put):
    for state in TRANSITIONS.keys() - {"CANCELLED", "FAILED", "PAUSING", "PAUSED"}:
        put("job", state=state)
        answer = await api.post(f"{job}:resume", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, 9)
        assert answer.json()["message"] == f"cannot resume job in state: {job_state(state)}"


async def test_a_job_is_paused_at_once_and_twice_is_once(api, job, put):
    for state in PAUSABLE:
        put("job", state=state, next_reconcile_at=None, lease_claims=3)
        for _ in range(2):
            answer = await api.post(f"{job}:pause", json={})
            assert (answer.status_code, answer.json()) == (200, {})
            shown = (await api.get(job)).json()
            assert (shown["state"], shown["status"]["code"]) == ("JOB_STATE_RUNNING", "OK")
            assert shown["status"]["message"].startswith("pausing")
        row = put("job")
        assert (row.state, row.next_reconcile_at is not None, row.lease_claims) == ("PAUSING", True, 0)
    put("job", state=PAUSED)
    assert (await api.post(f"{job}:pause")).status_code == 200
    assert (await api.get(job)).json()["state"] == "JOB_STATE_PAUSED"


async def test_a_job_that_is_over_is_not_paused(api, job, put):
    for state in [*ENDED, "WRITING_RESULTS", "CANCELLING"]:
        put("job", state=state)
        answer = await api.post(f"{job}:pause", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, 9)
        assert answer.json()["message"] == f"cannot pause job in state: JOB_STATE_{state}"


async def test_a_job_is_deleted_in_every_state(api, job, put):
    for state in TRANSITIONS:
        put("job", state=state, next_reconcile_at=None)
        assert (await api.delete(job)).status_code == 200, state
        row = put("job")
        assert (row.state, row.next_reconcile_at is not None) == ("DELETING", True)


async def test_a_job_that_would_only_fail_again_is_not_resumed(api, job, put):
    for code, reason in (
        ("INVALID_ARGUMENT", "BAD_ROW"),
        ("FAILED_PRECONDITION", "FILE_MISSING"),
        ("INTERNAL", "ADAPTER_INVALID"),
    ):
        put("job", state="FAILED", status_message="row 7: bad role", status_code=code, reason=reason)
        answer = await api.post(f"{job}:resume", json={})
        assert answer.status_code == 400
        assert answer.json()["message"].endswith("it would fail again: row 7: bad role")


async def test_a_job_whose_dataset_is_gone_is_not_resumed(api, job, put):
    put("job", state="CANCELLED")
    assert (await api.delete(f"{ACCOUNT}/datasets/chats")).status_code == 200
    answer = await api.post(f"{job}:resume", json={})
    assert answer.status_code == 400
    assert "accounts/hearth/datasets/chats, which it reads, is not there any more" in answer.json()["message"]


@pytest.mark.parametrize("read", ["datasets/chats", "datasets/held-out", "models/base"])
async def test_what_a_job_reads_is_not_deleted_while_it_is_resumed(api, job, put, http, db, read):
    with db.session() as session:
        held_out = session.scalars(select(DatasetRow).where(DatasetRow.id == "held-out")).one().uid
    put("job", state="CANCELLED", evaluation_dataset_uid=held_out)
    with db.session() as session:  # nothing but the job stands on it
        session.execute(delete(ModelRow).where(ModelRow.id == "addon"))
    async with http._transport.app.state.context.db.session() as session:
        row = await jobs.find_to_resume(session, ResourceName("hearth", "supervisedFineTuningJobs", "job"))
        await jobs.resume_job(session, row)
        deleted = asyncio.create_task(api.delete(f"{ACCOUNT}/{read}"))
        for _ in iter(lambda: deleted.done() or is_anybody_waiting(db), True):
            await asyncio.sleep(0.01)
    answer = await deleted
    assert (answer.status_code, answer.json()["code"]) == (400, 9), answer.text


async def test_a_job_on_a_model_that_was_taken_back_is_not_resumed(api, job, put, db):
    with db.session() as session:
        ensure_account(session, "rival", "a@x.org")
        theirs = ModelRow(account_id="rival", id="theirs", kind="HF_BASE_MODEL", state="READY", public=False)
        session.add(theirs)
        session.flush()
        put("job", state="CANCELLED")
        job_row = session.scalars(select(FineTuningJobRow)).one()
        job_row.base_model_uid = theirs.uid
        job_row.settings = {**job_row.settings, "base_model": theirs.name}
    answer = await api.post(f"{job}:resume", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, 9), answer.text
    assert "accounts/rival/models/theirs, which it reads, is not there any more" in answer.json()["message"]
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CANCELLED"


async def test_a_resumed_job_does_not_take_another_jobs_model(api, job, put):
    put("job", state="CANCELLED")
    other = await api.post(f"{JOBS}?supervisedFineTuningJobId=b", json={**CHATS, "outputModel": "job"})
    assert other.status_code == 200
    answer = await api.post(f"{job}:resume", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, 6)
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CANCELLED"


async def test_a_resumed_job_makes_its_model_in_a_place_of_its_own(api, job, put, db):
    """What was copied for the model that is not there would be deleted under the new one."""
    put("job", state="FAILED", reason="MODEL_DELETED", status_code="ABORTED", output_model_uid=UUID(int=7))
    assert (await api.post(f"{job}:resume", json={})).status_code == 200
    assert put("job").output_model_uid is None
    with db.session() as session:
        assert f"accounts/hearth/models/{UUID(int=7)}/" in set(session.scalars(select(GarbageRow.prefix)))


async def test_a_job_is_deleted_while_it_is_being_cancelled(api, job):
    await api.post(f"{job}:cancel", json={})
    assert (await api.delete(job)).json() == {}
    assert (await api.get(job)).json()["state"] == "JOB_STATE_DELETING"
    answer = await api.post(f"{job}:cancel", json={})
    assert answer.json()["message"] == "cannot cancel job in state: JOB_STATE_DELETING"


async def test_a_job_is_not_deleted_by_who_read_another_version(api, job):
    answer = await api.delete(job, headers={"If-Match": '"other"'})
    assert answer.status_code == 412
    etag = (await api.get(job)).headers["ETag"]
    assert (await api.delete(job, headers={"If-Match": etag})).status_code == 200


async def test_what_a_verb_does_not_know_is_refused_by_name(api, job):
    for verb in ("cancel", "pause", "resume"):
        answer = await api.post(f"{job}:{verb}", json={"force": True})
        assert (answer.status_code, answer.json()["message"]) == (400, 'unknown field "force"')
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CREATING"
    for body in ({"json": {}}, {}):
        assert (await api.post(f"{job}:cancel", **body)).json() == {}
