"""The key of a job that logs to Weights & Biases: with the trainer, and nowhere else in clear."""

from __future__ import annotations

import json
import logging

import pytest
from sqlalchemy import select

from controlplane.config import Settings
from controlplane.db import Base, import_tables
from controlplane.encryption import Cipher, generate_secret_key
from controlplane.resources.tables import FineTuningJobRow
from tests.reconcile.trainers import SETTINGS, put_json
from workers.runtimes.base import ProcessState, TrainerObservation

KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB = {"project": "p", "entity": "", "run_id": ""}


@pytest.fixture
def settings(settings):
    return Settings(**{**settings.model_dump(), "secret_keys": generate_secret_key()})


@pytest.fixture
def tracked(add_job, step, settings):
    """A job that logs there, and whose trainer is at work."""
    key = Cipher.from_settings(settings).encrypt(KEY)
    uid = add_job(settings={**SETTINGS, "wandb": WANDB}, wandb_api_key=key)
    for _ in range(3):
        row = step(uid)
    assert row.state == "RUNNING"
    return uid


def everything_stored(db, store):
    """Every row of every table, and every object."""
    import_tables()
    with db.session() as session:
        rows = [str(row) for table in Base.metadata.sorted_tables for row in session.execute(select(table))]
    objects = [item.key + store.get_bytes(item.key).decode(errors="replace") for item in store.list("")]
    return "\n".join([*rows, *objects])


def test_the_trainer_gets_the_key_by_its_environment_alone(tracked, trainer, db, object_store, caplog):
    caplog.set_level(logging.DEBUG)
    ((_, attempt, document),) = trainer.started
    assert trainer.secrets[attempt] == {"WANDB_API_KEY": KEY}
    assert document["wandb"] == {
        "project": "p",
        "entity": "",
        "run_id": tracked.hex,
        "base_url": "https://api.wandb.ai",
        "mode": "online",
    }
    assert KEY not in json.dumps(document)
    stored = everything_stored(db, object_store)
    assert "fine-tuning-jobs" in stored or str(tracked) in stored
    assert KEY not in stored
    assert KEY not in caplog.text


def test_another_attempt_gets_the_key_too(tracked, trainer, step):
    trainer.seen[1] = TrainerObservation(ProcessState.LOST)
    step(tracked)
    step(tracked)
    assert trainer.secrets[2] == {"WANDB_API_KEY": KEY}
    assert trainer.started[1][2]["wandb"]["run_id"] == tracked.hex


def test_the_key_is_forgotten_when_the_job_fails(tracked, step, object_store, db):
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, tracked)
    put_json(object_store, row, "result.json", {"outcome": "failed", "code": "INTERNAL", "message": "no"})
    row = step(tracked)
    assert (row.state, row.wandb_api_key) == ("FAILED", "")


@pytest.mark.parametrize(("asked", "keeps"), [("cancel", False), ("delete", False), ("pause", True)])
def test_the_key_is_forgotten_when_nobody_goes_on(tracked, step, ask, db, asked, keeps):
    ask(tracked, asked)
    with db.session() as session:
        row = session.get_one(FineTuningJobRow, tracked)
    for _ in range(3):
        row = step(tracked) or row
    assert (row.wandb_api_key != "") is keeps


def test_a_job_without_a_key_has_no_secret(add_job, step, trainer):
    uid = add_job()
    for _ in range(3):
        step(uid)
    assert trainer.secrets[1] == {}
    assert trainer.started[0][2]["wandb"] is None
