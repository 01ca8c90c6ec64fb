"""Supervised fine-tuning jobs through the published package, sync and async."""

from __future__ import annotations

import pytest
from fireworks import BadRequestError, NotFoundError
from sqlalchemy import update

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow

NAME = "accounts/hearth/supervisedFineTuningJobs/{}"
BASE = "accounts/hearth/models/base"


@pytest.fixture(autouse=True)
def inputs(db, admin_key):
    ready = {"account_id": "hearth", "state": "READY"}
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        session.add(ModelRow(**ready, id="base", kind="HF_BASE_MODEL", facts={"supports_lora": True}))
        session.add(DatasetRow(**ready, id="chats", format="CHAT", example_count=9))


@pytest.fixture
def cancelled(db):
    """Ends what is being cancelled, as a worker does."""

    def end():
        with db.session() as session:
            values = {"state": "CANCELLED", "status_code": "CANCELLED"}
            session.execute(
                update(FineTuningJobRow).where(FineTuningJobRow.state == "CANCELLING").values(**values)
            )

    return end


def test_a_job_from_its_creation_to_its_end(client, cancelled):
    jobs = client.supervised_fine_tuning_jobs
    job = jobs.create(
        dataset="chats",
        base_model=BASE,
        supervised_fine_tuning_job_id="mine",
        display_name="Mine",
        epochs=2,
        lora_rank=16,
        learning_rate=0.001,
        batch_size_samples=4,
        gradient_accumulation_steps=2,
        learning_rate_warmup_steps=3,
        optimizer_weight_decay=0.01,
        max_context_length=1024,
        eval_auto_carveout=True,
        early_stop=True,
        wandb_config={"enabled": False},
        output_model="tuned",
    )
    assert (job.name, job.state) == (NAME.format("mine"), "JOB_STATE_CREATING")
    assert (job.epochs, job.lora_rank, job.batch_size_samples) == (2, 16, 4)
    assert job.output_model == "accounts/hearth/models/tuned"
    other = jobs.create(dataset="chats", base_model=BASE)
    assert [found.name for found in jobs.list(page_size=1, order_by="create_time")] == [job.name, other.name]
    assert [found.name for found in jobs.list(filter='display_name = "Mine"')] == [job.name]
    assert [found.name for found in jobs.list(filter="state = JOB_STATE_CANCELLING")] == []
    assert jobs.get("mine").dataset == "accounts/hearth/datasets/chats"
    assert jobs.cancel("mine", body={}) == {}
    assert jobs.get("mine").state == "JOB_STATE_CANCELLING"
    assert [found.name for found in jobs.list(filter="state = JOB_STATE_CANCELLING")] == [job.name]
    with pytest.raises(BadRequestError, match="cannot resume job in state: JOB_STATE_CANCELLING"):
        jobs.resume("mine", body={})
    cancelled()
    assert jobs.resume("mine", body={}).state == "JOB_STATE_PENDING"
    assert jobs.delete("mine") == {}
    assert jobs.get("mine").state == "JOB_STATE_DELETING"


def test_what_is_refused_comes_as_the_packages_own_errors(client, rival_client):
    jobs = client.supervised_fine_tuning_jobs
    for refused in ({"is_turbo": True}, {"lora_rank": 0}, {"region": "US_IOWA_1"}):
        with pytest.raises(BadRequestError):
            jobs.create(dataset="chats", base_model=BASE, **refused)
    jobs.create(dataset="chats", base_model=BASE, supervised_fine_tuning_job_id="mine")
    with pytest.raises(NotFoundError):
        jobs.get("none")
    with pytest.raises(NotFoundError):
        rival_client.supervised_fine_tuning_jobs.cancel("mine", account_id="hearth", body={})
    assert list(rival_client.supervised_fine_tuning_jobs.list()) == []


async def test_the_same_asynchronously(async_client, cancelled):
    jobs = async_client.supervised_fine_tuning_jobs
    job = await jobs.create(dataset="chats", base_model=BASE, supervised_fine_tuning_job_id="mine")
    assert [found.name async for found in jobs.list()] == [job.name]
    assert await jobs.cancel("mine", body={}) == {}
    cancelled()
    assert (await jobs.get("mine")).state == "JOB_STATE_CANCELLED"
    assert (await jobs.resume("mine", body={})).state == "JOB_STATE_PENDING"
    assert await jobs.delete("mine") == {}
