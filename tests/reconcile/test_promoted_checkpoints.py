"""Checkpoints made models of: copied by a worker, and checked as every upload is."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import func, select

from controlplane.bootstrap import ensure_account
from controlplane.resources.fine_tuning_jobs.checkpoints import to_copy
from controlplane.resources.tables import FineTuningJobRow, GarbageRow, LedgerRow, ModelRow
from tests.reconcile.test_fine_tuning_jobs import delete_as_the_api_does
from tests.reconcile.trainers import SETTINGS
from tests.validation.conftest import adapter_files
from tests.validation.crafted import CONFIG
from workers.reconcile.models import reconcile_model

__all__ = ["adapter_files"]

FACTS = {"architecture": "LlamaForCausalLM", "config": CONFIG, "supports_lora": True}
JOB = "accounts/hearth/fineTuningJobs/job"
PLACE = "accounts/hearth/fine-tuning-jobs/1/samplers/sampler-5/"


@pytest.fixture
def promoted(db, object_store, adapter_files):
    """A model as the API makes it of a checkpoint; the card goes with it."""
    files = {**adapter_files, "README.md": b"# A card"}
    for name, content in files.items():
        object_store.put_bytes(PLACE + name, content)
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        base = ModelRow(account_id="hearth", id="base", kind="HF_BASE_MODEL", state="READY", facts=FACTS)
        session.add(base)
        session.flush()
        row = ModelRow(
            account_id="hearth",
            id="early",
            kind="HF_PEFT_ADDON",
            base_model_uid=base.uid,
            files={
                name: to_copy(
                    PLACE + name, {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                )
                for name, content in files.items()
            },
            lineage={"fine_tuning_job": JOB, "checkpoint": f"{JOB}/checkpoints/sampler-5"},
            state="UPLOADING",
            reason="CHECKING",
            next_reconcile_at=func.now(),
        )
        session.add(row)
        session.flush()
        return row


def checked(context, db, row):
    reconcile_model(context, row.uid)
    with db.session() as session:
        return session.get_one(ModelRow, row.uid)


def test_a_checkpoint_that_is_gone_by_then_is_told_as_such(context, db, object_store, promoted):
    object_store.delete_prefix(PLACE)
    row = checked(context, db, promoted)
    assert (row.state, row.reason, row.status_code) == ("UPLOADING", "INVALID", "FAILED_PRECONDITION")
    assert "threw its checkpoint away for a later one" in row.status_message


def test_a_checkpoint_that_passes_the_check_is_a_model_of_its_own(context, db, object_store, promoted):
    row = checked(context, db, promoted)
    assert (row.state, row.status_message) == ("READY", "")
    assert set(row.files["README.md"]) == {"size", "sha256"}
    object_store.delete_prefix(PLACE)
    for name in row.files:
        assert object_store.get_bytes(row.prefix + name)


@pytest.mark.parametrize(("state", "tokens"), [("CANCELLED", 700), ("FAILED", 700), ("RUNNING", 700)])
def test_a_model_of_a_checkpoint_costs_what_its_job_had_trained(
    context, db, promoted, trained_job, state, tokens
):
    trained_job(state=state, progress={"tokens_seen": tokens})
    checked(context, db, promoted)
    assert [(entry.job, entry.trained_tokens) for entry in entries(db)] == [(JOB, tokens)]


def test_a_second_model_of_the_same_checkpoint_costs_nothing_more(context, db, promoted, trained_job):
    trained_job(state="COMPLETED", progress={"tokens_seen": 700}, metered_tokens=700)
    assert checked(context, db, promoted).state == "READY"
    assert entries(db) == []


def test_a_checkpoint_that_is_no_model_costs_nothing(context, db, object_store, promoted, trained_job):
    trained_job(state="CANCELLED", progress={"tokens_seen": 700})
    object_store.delete(PLACE + "adapter_model.safetensors")
    checked(context, db, promoted)
    assert entries(db) == []


@pytest.fixture
def trained_job(db):
    """The job of which `promoted` is a checkpoint."""

    def add(**values):
        with db.session() as session:
            row = FineTuningJobRow(
                account_id="hearth",
                id="job",
                kind="conversation",
                model_id="tuned",
                settings=SETTINGS,
                **values,
            )
            session.add(row)

    return add


def entries(db):
    with db.session() as session:
        return list(session.scalars(select(LedgerRow)))


def test_a_checkpoint_that_went_meanwhile_is_told_of(context, db, object_store, promoted):
    object_store.delete(PLACE + "adapter_model.safetensors")
    row = checked(context, db, promoted)
    assert (row.state, row.reason) == ("UPLOADING", "INVALID")
    assert "adapter_model.safetensors" in row.status_message


def test_a_checkpoint_that_is_not_what_its_manifest_says_is_refused(context, db, object_store, promoted):
    object_store.put_bytes(PLACE + "README.md", b"# B card")
    row = checked(context, db, promoted)
    assert (row.state, "README.md" in row.status_message) == ("UPLOADING", True)


def test_a_deleted_job_takes_everything_along_but_its_models(running, step, db, object_store):
    with db.session() as session:
        job = session.get_one(FineTuningJobRow, running)
        session.add(
            ModelRow(
                account_id="hearth", id="early", kind="HF_PEFT_ADDON", fine_tuning_job=job.name, state="READY"
            )
        )
    for name in ("plot.svg", "samplers/sampler-5/manifest.json", "checkpoints/checkpoint-5/manifest.json"):
        object_store.put_bytes(job.prefix + name, b"{}")
    delete_as_the_api_does(db, running)
    assert [step(running) for _ in range(3)][-1] is None
    with db.session() as session:
        assert [row.prefix for row in session.scalars(select(GarbageRow))] == [job.prefix]
        assert session.scalars(select(ModelRow.id).where(ModelRow.fine_tuning_job == job.name)).all() == [
            "early"
        ]
