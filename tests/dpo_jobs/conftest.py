"""The control plane with what preference tuning reads, and one job."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from tests.controlplane.conftest import admin_key, api, db, http, other_key

__all__ = ["admin_key", "api", "db", "http", "other_key"]

ACCOUNT = "/v1/accounts/hearth"
JOBS = f"{ACCOUNT}/dpoJobs"
BASE = "accounts/hearth/models/base"


def pairs(*, training=None, **others):
    """The body of a job: `training` is laid over its training configuration, `others` over the rest."""
    return {"dataset": "pairs", "trainingConfig": {"baseModel": BASE, **(training or {})}, **others}


@pytest.fixture(autouse=True)
def inputs(db, admin_key):
    """A tunable base, an addon, and datasets of all kinds."""
    facts = {"supports_lora": True, "architecture": "LlamaForCausalLM", "parameter_count": 10}
    ready = {"account_id": "hearth", "state": "READY"}
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        base = ModelRow(**ready, id="base", kind="HF_BASE_MODEL", facts=facts, context_length=512)
        session.add(base)
        session.flush()
        session.add_all(
            [
                ModelRow(**ready, id="addon", kind="HF_PEFT_ADDON", facts={"r": 4}, base_model_uid=base.uid),
                DatasetRow(
                    **ready,
                    id="pairs",
                    format="PREFERENCE",
                    example_count=100,
                    estimated_token_count=1_500_000,
                ),
                DatasetRow(**ready, id="held-out", format="PREFERENCE", example_count=10),
                DatasetRow(**ready, id="chats", format="CHAT", example_count=10),
            ]
        )


@pytest.fixture
def put(db):
    """Brings the job into a state, as workers would."""

    def change(job_id, **values):
        with db.session() as session:
            row = session.scalars(select(FineTuningJobRow).where(FineTuningJobRow.id == job_id)).one()
            for name, value in values.items():
                setattr(row, name, value)
            return row

    return change


@pytest.fixture
async def job(api):
    """A new job, by its path."""
    answer = await api.post(f"{JOBS}?dpoJobId=job", json=pairs())
    assert answer.status_code == 200, answer.text
    return f"{JOBS}/job"


@pytest.fixture
def app_settings(http):
    """The settings of the app that `api` talks to."""
    return http._transport.app.state.context.settings
