"""What an inspection says that training would take, for the job that the request stands for."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs import defaults
from controlplane.resources.fine_tuning_jobs.defaults import Defaults, defaults_table
from controlplane.resources.tables import FineTuningJobRow, InspectionRow, ModelRow
from tests.controlplane.inspected import ASKED, BASE, HOME, INSPECT, inputs, work

__all__ = ["inputs", "work"]


async def test_what_a_job_would_cost_is_counted_once_there_is_a_report(api, work, http):
    http._transport.app.state.context.settings.prices = Prices.model_validate(
        {"trainedTokens": {BASE: "1000000"}}
    )
    body = {"dataset": "chats", "baseModel": BASE, "maxContextLength": 100, "epochs": 2}
    path = f"{HOME}/supervisedFineTuningJobs:estimateCost"
    assert (await api.post(path, json=body)).json()["tokensBasis"] == "ESTIMATED"

    work()

    answer = (await api.post(path, json=body)).json()
    assert answer["tokensBasis"] == "COUNTED"
    assert int(answer["tokens"]) > 1000
    assert answer["estimatedCost"]["units"] == answer["tokens"]


async def test_a_new_job_costs_what_the_estimate_has_just_said(api, work, http):
    http._transport.app.state.context.settings.prices = Prices.model_validate(
        {"trainedTokens": {BASE: "1000000"}}
    )
    body = {"dataset": "chats", "baseModel": BASE, "maxContextLength": 100, "epochs": 2}
    jobs = f"{HOME}/supervisedFineTuningJobs"
    before = (await api.post(jobs, json=body)).json()
    assert before["estimatedCost"]["units"] == "0"
    asked = {**ASKED, "epochs": 2, "collection": "supervisedFineTuningJobs"}
    await api.post(INSPECT, json=asked)

    work()

    inspected = (await api.post(INSPECT, json=asked)).json()["report"]["estimate"]
    estimated = (await api.post(f"{jobs}:estimateCost", json=body)).json()
    assert estimated["tokensBasis"] == "COUNTED"
    created = (await api.post(jobs, json=body)).json()
    assert created["estimatedCost"] == estimated["estimatedCost"] == inspected["cost"]
    assert int(created["estimatedCost"]["units"]) > 1000


@pytest.mark.parametrize(
    ("dataset", "asked", "cutoff", "rank", "batch"),
    [
        ("chats", {}, 400, 4, 32),
        ("chats", {"collection": "supervisedFineTuningJobs"}, 1024, 8, 32),
        ("pairs", {}, 1024, 8, 32),
        ("chats", {"batchSizeSamples": 8, "gradientAccumulationSteps": 2}, 400, 4, 16),
        ("pairs", {"batchSize": 4096}, 1024, 8, 1),
    ],
)
async def test_what_is_left_out_is_as_in_the_collection_that_would_train(
    api, db, monkeypatch, dataset, asked, cutoff, rank, batch
):
    own = Defaults(batch_size=32, lora_rank=4, epochs=1, learning_rate=1e-4, cutoff_length=400)
    table = defaults_table()
    monkeypatch.setattr(
        defaults, "defaults_table", lambda: table.model_copy(update={"models": {"base": own}})
    )

    answer = await api.post(f"{HOME}/datasets/{dataset}:inspect", json={"baseModel": BASE, **asked})

    assert answer.status_code == 200, answer.text
    with db.session() as session:
        told = session.scalars(select(InspectionRow)).one().settings
    assert (told["cutoff_length"], told["lora_rank"], told["batch_size"]) == (cutoff, rank, batch)


async def test_batches_and_rows_held_out_change_what_training_takes(api, work, db):
    async def taken(**asked):
        body = {**ASKED, **asked}
        await api.post(INSPECT, json=body)
        work()
        return (await api.post(INSPECT, json=body)).json()["report"]

    whole = await taken()
    small = await taken(batchSizeSamples=4)
    packed = await taken(collection="supervisedFineTuningJobs", batchSize=100)
    split = await taken(evalAutoCarveout=True, evaluationSplit=0.5)

    told = [report["estimate"] for report in (whole, small, packed, split)]
    # 59 rows are trained, of 7 or 8 tokens: twelve or thirteen in a pack of 100.
    assert [estimate["stepsPerEpoch"] for estimate in told[:2]] == ["4", "15"]
    assert int(told[2]["stepsPerEpoch"]) >= -(-int(told[0]["tokens"]) // 100)
    assert told[3]["stepsPerEpoch"] == "2"
    assert 0.4 < int(told[3]["tokens"]) / int(told[0]["tokens"]) < 0.6
    longest = next(finding for finding in whole["findings"] if finding["code"] == "ROWS_CUT")
    assert int(re.search("longest row has ([0-9,]+) tokens", longest["hint"])[1].replace(",", "")) % 16 != 0


async def test_the_time_is_told_by_the_last_job_on_the_same_model(api, work, db):
    await api.post(INSPECT, json=ASKED)
    work()
    before = (await api.post(INSPECT, json=ASKED)).json()["report"]["estimate"]
    assert (before["seconds"], before["secondsBasis"]) == ("0", "")
    with db.session() as session:
        base = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
        session.add(
            FineTuningJobRow(
                account_id="hearth",
                id="earlier",
                kind="conversation",
                model_id="tuned",
                base_model_uid=base.uid,
                dataset_uid=None,
                state="COMPLETED",
                # Resumed: the speed is that of its last attempt, and the tokens are those of all.
                result={"metrics": {"tokens_seen": 1000, "train_runtime": 1, "tokens_per_second": 10.0}},
                end_time=datetime(2030, 1, 1, tzinfo=UTC),
            )
        )
        session.add(
            FineTuningJobRow(
                account_id="hearth",
                id="of-an-earlier-version",
                kind="conversation",
                model_id="tuned-too",
                base_model_uid=base.uid,
                dataset_uid=None,
                state="COMPLETED",
                result={"metrics": {"tokens_seen": 1000, "train_runtime": 1}},
                end_time=datetime(2031, 1, 1, tzinfo=UTC),
            )
        )

    after = (await api.post(INSPECT, json=ASKED)).json()["report"]["estimate"]

    assert after["secondsBasis"] == "EARLIER_JOBS"
    assert int(after["seconds"]) == round(int(after["tokens"]) / 10)
