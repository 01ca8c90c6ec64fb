"""Preference tuning jobs through the published package, sync and async."""

from __future__ import annotations

import httpx
import pytest
from fireworks import BadRequestError, NotFoundError
from sqlalchemy import select, update

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow

NAME = "accounts/hearth/dpoJobs/{}"
BASE = "accounts/hearth/models/base"


@pytest.fixture(autouse=True)
def inputs(db, admin_key):
    ready = {"account_id": "hearth", "state": "READY"}
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        session.add(ModelRow(**ready, id="base", kind="HF_BASE_MODEL", facts={"supports_lora": True}))
        session.add(DatasetRow(**ready, id="pairs", format="PREFERENCE", example_count=9))


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


def test_a_job_from_its_creation_to_its_end(client, db, object_store, cancelled):
    jobs = client.dpo_jobs
    job = jobs.create(
        dataset="pairs",
        dpo_job_id="mine",
        display_name="Mine",
        training_config={
            "base_model": BASE,
            "output_model": "polite",
            "epochs": 2,
            "learning_rate": 0.001,
            "lora_rank": 16,
            "batch_size_samples": 4,
            "gradient_accumulation_steps": 2,
            "learning_rate_warmup_steps": 3,
            "max_context_length": 1024,
            "optimizer_weight_decay": 0.01,
        },
        loss_config={"method": "DPO", "dpo": {"beta": 0.2}},
        wandb_config={"enabled": False},
    )
    assert (job.name, job.state) == (NAME.format("mine"), "JOB_STATE_CREATING")
    assert (job.training_config.epochs, job.training_config.lora_rank) == (2, 16)
    assert job.training_config.output_model == "accounts/hearth/models/polite"
    assert (job.loss_config.method, job.loss_config.dpo.beta) == ("DPO", 0.2)
    other = jobs.create(dataset="pairs", training_config={"base_model": BASE}, loss_config={"method": "ORPO"})
    assert other.loss_config.method == "ORPO"
    assert [found.name for found in jobs.list(page_size=1, order_by="create_time")] == [job.name, other.name]
    assert [found.name for found in jobs.list(filter="loss_config.method = ORPO")] == [other.name]
    assert jobs.get("mine").dataset == "accounts/hearth/datasets/pairs"
    assert not jobs.get_metrics_file_endpoint("mine").signed_url
    assert jobs.cancel("mine", body={}) == {}
    with pytest.raises(BadRequestError, match="cannot resume job in state: JOB_STATE_CANCELLING"):
        jobs.resume("mine", body={})
    cancelled()
    assert jobs.resume("mine", body={}).state == "JOB_STATE_PENDING"
    logged(db, object_store, "mine", b'{"step": 1}\n')
    assert httpx.get(jobs.get_metrics_file_endpoint("mine").signed_url).text == '{"step": 1}\n'
    assert jobs.delete("mine") == {}
    assert jobs.get("mine").state == "JOB_STATE_DELETING"


def logged(db, object_store, job_id, metrics):
    with db.session() as session:
        row = session.scalars(select(FineTuningJobRow).where(FineTuningJobRow.id == job_id)).one()
        row.attempt = 1
        object_store.put_bytes(row.prefix + "metrics.jsonl", metrics)


def test_what_is_refused_comes_as_the_packages_own_errors(client, rival_client):
    jobs = client.dpo_jobs
    for refused in (
        {"loss_config": {"method": "GRPO"}},
        {"training_config": {"base_model": BASE, "lora_rank": 0}},
        {"training_config": {"base_model": BASE, "region": "US_IOWA_1"}},
    ):
        with pytest.raises(BadRequestError):
            jobs.create(**{"dataset": "pairs", "training_config": {"base_model": BASE}, **refused})
    jobs.create(dataset="pairs", training_config={"base_model": BASE}, dpo_job_id="mine")
    with pytest.raises(NotFoundError):
        jobs.get("none")
    with pytest.raises(NotFoundError):
        rival_client.dpo_jobs.cancel("mine", account_id="hearth", body={})
    assert list(rival_client.dpo_jobs.list()) == []


async def test_the_same_asynchronously(async_client, cancelled):
    jobs = async_client.dpo_jobs
    job = await jobs.create(dataset="pairs", training_config={"base_model": BASE}, dpo_job_id="mine")
    assert [found.name async for found in jobs.list()] == [job.name]
    assert await jobs.cancel("mine", body={}) == {}
    cancelled()
    assert (await jobs.get("mine")).state == "JOB_STATE_CANCELLED"
    assert (await jobs.resume("mine", body={})).state == "JOB_STATE_PENDING"
    assert await jobs.delete("mine") == {}
