"""Inspections: what training on a dataset would meet, found out by a worker and kept."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import select

from controlplane.resources.inspections import service
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, InspectionRow, ModelRow
from tests.controlplane.inspected import ASKED, BASE, HOME, INSPECT, MODEL, NEWER, inputs, work
from workers.reconcile import inspections

__all__ = ["inputs", "work"]


def codes(report: dict[str, Any]) -> dict[str, str]:
    return {finding["code"]: finding["rows"] for finding in report["findings"]}


async def test_a_report_is_asked_for_made_and_kept(api, work, db):
    asked = await api.post(INSPECT, json={**ASKED, "evaluationDataset": "held-out", "epochs": 2})
    assert asked.json()["state"] == "PENDING"
    assert "report" not in asked.json()

    work()

    answer = (await api.post(INSPECT, json={**ASKED, "evaluationDataset": "held-out", "epochs": 2})).json()
    report = answer["report"]
    assert answer["state"] == "READY"
    assert (report["kind"], report["masking"], report["cutoffLength"]) == ("conversation", "generation", 100)
    assert codes(report) == {"ROWS_CUT": "1", "ROWS_DROPPED": "1", "DUPLICATE_ROWS": "1", "ROWS_IN_BOTH": "1"}
    places = {finding["code"]: finding["places"] for finding in report["findings"]}
    assert places["ROWS_CUT"] == ["rows.jsonl line 21"]
    assert places["DUPLICATE_ROWS"] == ["rows.jsonl line 11"]
    assert places["ROWS_IN_BOTH"] == ["rows.jsonl line 1"]
    assert report["training"]["rowsTrained"] == "59"
    assert sum(int(step["rows"]) for step in report["training"]["lengths"]) == 60
    assert report["estimate"]["tokens"] == str(2 * int(report["training"]["tokens"]))
    assert [row["place"] for row in report["rows"]] == [f"rows.jsonl line {n}" for n in (1, 2, 3)]
    pieces = report["rows"][0]["examples"][0]
    assert [(piece["text"], piece["trained"], piece["special"]) for piece in pieces] == [
        ("<|bos|><|user|>", False, True),
        ("question 0", False, False),
        ("<|end|><|assistant|>", False, True),
        ("answer 0", True, False),
        ("<|end|>", True, True),
    ]
    with db.session() as session:
        assert len(list(session.scalars(select(InspectionRow)))) == 1


async def test_rows_further_down_are_looked_up(api, work):
    body = {**ASKED, "firstRow": 59, "rowCount": 5}
    await api.post(INSPECT, json=body)

    work()

    report = (await api.post(INSPECT, json=body)).json()["report"]
    assert [row["place"] for row in report["rows"]] == ["rows.jsonl line 59", "rows.jsonl line 60"]
    assert report["training"]["rows"] == "60"


async def test_other_settings_are_another_report(api, work):
    await api.post(INSPECT, json=ASKED)
    work()

    assert (await api.post(INSPECT, json={**ASKED, "maxContextLength": 200})).json()["state"] == "PENDING"
    assert (await api.post(INSPECT, json=ASKED)).json()["state"] == "READY"


@pytest.mark.parametrize(
    ("asked", "kind", "found"),
    [
        ({}, "text_completion", {"SAME_ANSWER", "DUPLICATE_ROWS"}),
        (
            {"textClassification": {"text": "prompt", "label": "mood"}},
            "text_classification",
            {"SAME_ANSWER", "DUPLICATE_ROWS", "ONE_LABEL"},
        ),
    ],
)
async def test_every_kind_of_job_is_inspected(api, work, asked, kind, found):
    path, body = f"{HOME}/datasets/texts:inspect", {"baseModel": BASE, **asked}
    await api.post(path, json=body)
    work()

    answer = (await api.post(path, json=body)).json()

    assert answer["state"] == "READY", answer
    assert answer["report"]["kind"] == kind
    assert set(codes(answer["report"])) == found


async def test_pairs_are_shown_with_both_answers_and_counted_by_both(api, work):
    path, body = f"{HOME}/datasets/pairs:inspect", {"baseModel": BASE}
    await api.post(path, json=body)
    work()

    answer = (await api.post(path, json=body)).json()

    assert answer["state"] == "READY", answer
    report = answer["report"]
    assert (report["kind"], codes(report)) == ("preference", {})
    assert (report["training"]["rowsTrained"], report["training"]["examples"]) == ("20", "40")
    learned = [
        [piece["text"] for piece in example if piece["trained"]] for example in report["rows"][0]["examples"]
    ]
    assert learned == [["answer 0", "<|end|>"], ["no idea", "<|end|>"]]
    assert report["estimate"]["stepsPerEpoch"] == "2"


async def test_rows_that_no_job_could_train_are_errors_of_the_report(api, work):
    template = (
        "{% for m in messages %}{% if 'question' in m.content or 'long' in m.content %}"
        "{{ raise_exception('no ' + m.role) }}{% endif %}{{ m.content }}{% endfor %}"
    )
    await api.post(INSPECT, json={**ASKED, "jinjaTemplate": template})
    work()

    report = (await api.post(INSPECT, json={**ASKED, "jinjaTemplate": template})).json()["report"]

    (finding,) = [finding for finding in report["findings"] if finding["severity"] == "ERROR"]
    assert (finding["code"], finding["rows"]) == ("TEMPLATE_ERROR", "60")
    assert finding["places"][0] == "rows.jsonl line 1: the chat template cannot render the row: no user"
    assert len(finding["places"]) == 10


async def test_what_cannot_be_read_at_all_says_why_and_is_tried_again_when_asked(api, work, db, object_store):
    with db.session() as session:
        row = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
        row.files = {name: file for name, file in row.files.items() if name != "tokenizer.json"}
    await api.post(INSPECT, json=ASKED)
    work()

    answer = (await api.post(INSPECT, json=ASKED)).json()

    # Asking for it begins another try, whose answer is not here yet.
    assert answer["state"] == "PENDING"
    with db.session() as session:
        row = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
        data = (MODEL / "tokenizer.json").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        row.files = {**row.files, "tokenizer.json": {"size": len(data), "sha256": digest}}
    work()
    assert (await api.post(INSPECT, json=ASKED)).json()["state"] == "READY"


async def test_a_failed_inspection_names_the_cause(api, work, db, settings):
    settings.verdict_wait_seconds = 30
    with db.session() as session:
        row = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
        row.files = {name: file for name, file in row.files.items() if name != "tokenizer.json"}
        session.add(_pending(session))
    work()

    with db.session() as session:
        row = session.scalars(select(InspectionRow)).one()
        assert (row.state, row.status_code) == ("FAILED", "FAILED_PRECONDITION")
        assert "the tokenizer of accounts/hearth/models/base cannot be read" in row.status_message


def _pending(session: Any) -> InspectionRow:
    base = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
    dataset = session.scalars(select(DatasetRow).where(DatasetRow.id == "chats")).one()
    job = FineTuningJobRow(
        account_id="hearth", kind="conversation", dataset_uid=dataset.uid, base_model_uid=base.uid
    )
    from controlplane.db import now
    from controlplane.resources.inspections.service import inspection_of
    from tests.reconcile.trainers import SETTINGS

    job.settings = {**SETTINGS, "templates": {}}
    row = inspection_of(job)
    row.next_reconcile_at = now()
    return row


async def test_an_inspection_that_takes_too_long_is_ended(api, work, db, monkeypatch):
    monkeypatch.setattr(inspections, "MAX_SECONDS", 0.01)
    await api.post(INSPECT, json=ASKED)

    work()

    with db.session() as session:
        row = session.scalars(select(InspectionRow)).one()
        assert (row.state, row.status_code) == ("FAILED", "DEADLINE_EXCEEDED")


async def test_an_inspection_that_takes_too_much_memory_says_so(api, work, db, monkeypatch):
    monkeypatch.setattr(inspections, "GIB", 1 << 25)
    await api.post(INSPECT, json=ASKED)

    work()

    with db.session() as session:
        row = session.scalars(select(InspectionRow)).one()
        assert (row.state, row.status_code, row.reason) == ("FAILED", "RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
        assert "more than the 8 GiB of memory" in row.status_message


async def test_nothing_is_left_on_the_workers_disk(api, work, settings):
    await api.post(INSPECT, json=ASKED)
    work()

    assert list((settings.data_dir / "inspections").iterdir()) == []


async def test_an_account_has_a_bounded_number_of_inspections_under_way(api, work, monkeypatch):
    monkeypatch.setattr(service, "MOST_PENDING", 1)
    assert (await api.post(INSPECT, json=ASKED)).status_code == 200
    other = {**ASKED, "epochs": 3}
    refused = await api.post(INSPECT, json=other)
    assert (refused.status_code, refused.json()["code"]) == (429, 8)
    assert "1 inspections of accounts/hearth are under way" in refused.json()["message"]
    assert (await api.post(INSPECT, json=ASKED)).json()["state"] == "PENDING"
    body = {"dataset": "chats", "baseModel": BASE, "maxContextLength": 100, "epochs": 2}
    estimated = await api.post(f"{HOME}/supervisedFineTuningJobs:estimateCost", json=body)
    assert estimated.json()["tokensBasis"] == "ESTIMATED"

    work()

    assert (await api.post(INSPECT, json=other)).json()["state"] == "PENDING"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "exactly one of baseModel and warmStartFrom"),
        ({"baseModel": BASE, "maxContextLength": 4096}, "maxContextLength is more than the model's context"),
        ({"baseModel": BASE, "jinjaTemplate": "{% if %}"}, "does not parse at line 1"),
        ({"baseModel": BASE, "jinjaTemplate": "a" * 65_537}, "the template has 65,537 characters"),
        ({"baseModel": BASE, "textCompletion": {"inputTemplate": "a", "outputTemplate": "b"}}, "format CHAT"),
        ({"baseModel": BASE, "rowCount": 51}, "rowCount"),
        (
            {"baseModel": BASE, "jinjaTemplate": "x", "textClassification": {"text": "a", "label": "b"}},
            "give one of jinjaTemplate and textClassification",
        ),
        ({"baseModel": BASE, "collection": "dpoJobs"}, "has format CHAT; this job reads PREFERENCE"),
        ({"baseModel": BASE, "collection": "models"}, "is none of"),
        ({"baseModel": BASE, "batchSize": 4096}, "fineTuningJobs have no such setting"),
        ({"baseModel": BASE, "batchSizeSamples": 12}, "batchSizeSamples must be a power of 2"),
        ({"baseModel": BASE, "evaluationSplit": 0.5}, "evaluationSplit has no effect: set evalAutoCarveout"),
        ({**NEWER, "epochs": 1.5}, "epochs of supervisedFineTuningJobs is a whole number"),
        ({**NEWER, "batchSize": 100, "batchSizeSamples": 8}, "give one of them"),
        ({**NEWER, "evalAutoCarveout": True, "evaluationSplit": 0.5}, "evaluationSplit has no effect"),
        ({**NEWER, "textClassification": {"text": "a", "label": "b"}}, "have no such setting"),
    ],
)
async def test_what_a_job_could_not_be_is_refused_at_once(api, body, complaint):
    answer = await api.post(INSPECT, json=body)

    assert answer.status_code == 400
    assert complaint in answer.text


async def test_nobody_else_inspects_a_dataset(http, other_key):
    http.headers["Authorization"] = f"Bearer {other_key}"

    assert (await http.post(INSPECT, json=ASKED)).status_code == 404


async def test_a_dataset_takes_its_reports_with_it(api, work, db):
    await api.post(INSPECT, json=ASKED)
    work()

    assert (await api.delete(f"{HOME}/datasets/chats")).status_code == 200

    with db.session() as session:
        assert session.scalars(select(InspectionRow)).all() == []
