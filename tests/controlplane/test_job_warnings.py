"""A job's warnings: shown in every collection as soon as the trainer says them, and for good."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow

HOME = "/v1/accounts/hearth"
BASE = "accounts/hearth/models/base"
FACTS = {"supports_lora": True, "architecture": "LlamaForCausalLM", "parameter_count": 10}
COLLECTIONS = {
    "fineTuningJobs": {"dataset": "chats", "baseModel": BASE, "conversation": {}},
    "supervisedFineTuningJobs": {"dataset": "chats", "baseModel": BASE},
    "dpoJobs": {"dataset": "pairs", "trainingConfig": {"baseModel": BASE}},
}
CUT, KEPT = "cut off at 512 tokens: 2 rows", "the adapter of step 4 of 9 was kept"
EARLY = {"progress": {"phase": "TRAINING", "warnings": [CUT]}}
ENDED = {
    "progress": {"phase": "UPLOADING", "warnings": [CUT]},
    "result": {"report": {"warnings": [CUT, KEPT]}},
}
# Of several processes one can fail that has nothing to say itself.
OTHER = {"progress": EARLY["progress"], "result": {"outcome": "failed", "report": {"warnings": []}}}


@pytest.fixture(autouse=True)
def inputs(db: Any, admin_key: str) -> None:
    ready: dict[str, Any] = {"account_id": "hearth", "state": "READY"}
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        session.add(ModelRow(**ready, id="base", kind="HF_BASE_MODEL", facts=FACTS, context_length=512))
        for id, format in (("chats", "CHAT"), ("pairs", "PREFERENCE")):
            session.add(DatasetRow(**ready, id=id, format=format, example_count=100))


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_warnings_are_shown_while_a_job_runs_and_whatever_becomes_of_it(
    api: Any, db: Any, collection: str
) -> None:
    job = (await api.post(f"{HOME}/{collection}", json=COLLECTIONS[collection])).json()
    assert job["warnings"] == []
    for state, values, expected in (
        ("RUNNING", EARLY, [CUT]),
        ("CANCELLED", EARLY, [CUT]),
        ("FAILED", OTHER, [CUT]),
        ("COMPLETED", ENDED, [CUT, KEPT]),
    ):
        with db.session() as session:
            row = session.scalars(select(FineTuningJobRow)).one()
            row.state, row.progress, row.result = state, values["progress"], values.get("result", {})

        shown = (await api.get(f"/v1/{job['name']}")).json()

        assert shown["warnings"] == expected, state
        assert "warnings" not in (shown.get("progress") or shown["jobProgress"])
        found = (
            await api.get(f"{HOME}/{collection}", params={"filter": f'warnings:"{expected[-1]}"'})
        ).json()
        assert [one["warnings"] for one in found[collection]] == [expected], state


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_who_sends_a_job_back_says_nothing_with_its_warnings(api: Any, collection: str) -> None:
    body = {**COLLECTIONS[collection], "warnings": ["of another job"]}

    assert (await api.post(f"{HOME}/{collection}", json=body)).json()["warnings"] == []
    assert (await api.get(f"{HOME}/{collection}?filter=warnings:*")).json()[collection] == []


async def test_a_job_of_an_earlier_version_shows_what_stands_in_its_result(api: Any, db: Any) -> None:
    job = (await api.post(f"{HOME}/fineTuningJobs", json=COLLECTIONS["fineTuningJobs"])).json()
    with db.session() as session:
        row = session.scalars(select(FineTuningJobRow)).one()
        row.state, row.progress, row.result = "COMPLETED", {"phase": "UPLOADING"}, ENDED["result"]

    assert (await api.get(f"/v1/{job['name']}")).json()["warnings"] == [CUT, KEPT]
