"""Reading a job's log and its metrics through the API, in every collection."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from controlplane.bootstrap import ensure_account
from controlplane.resources.fine_tuning_jobs.logs import PAGE_BYTES, chunk_key
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow

ACCOUNT = "/v1/accounts/hearth"
BODY = {"dataset": "chats", "baseModel": "accounts/hearth/models/base"}
BODIES = {
    "fineTuningJobs": {**BODY, "conversation": {}},
    "supervisedFineTuningJobs": BODY,
    "dpoJobs": {"dataset": "pairs", "trainingConfig": {"baseModel": "accounts/hearth/models/base"}},
}
QUERIES = {
    "fineTuningJobs": "fineTuningJobId",
    "supervisedFineTuningJobs": "supervisedFineTuningJobId",
    "dpoJobs": "dpoJobId",
}


@pytest.fixture(autouse=True)
def inputs(db, admin_key):
    facts = {"supports_lora": True, "architecture": "LlamaForCausalLM", "parameter_count": 10}
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        session.add_all(
            [
                ModelRow(
                    account_id="hearth",
                    id="base",
                    kind="HF_BASE_MODEL",
                    state="READY",
                    facts=facts,
                    context_length=512,
                ),
                DatasetRow(account_id="hearth", id="chats", state="READY", format="CHAT", example_count=100),
                DatasetRow(
                    account_id="hearth", id="pairs", state="READY", format="PREFERENCE", example_count=100
                ),
            ]
        )


@pytest.fixture(params=BODIES)
async def job(request, api):
    """A job's path in each of the collections."""
    collection = request.param
    made = await api.post(f"{ACCOUNT}/{collection}?{QUERIES[collection]}=j", json=BODIES[collection])
    assert made.status_code == 200, made.text
    return f"{ACCOUNT}/{collection}/j"


@pytest.fixture
def row(db):
    def change(**values):
        with db.session() as session:
            session.execute(update(FineTuningJobRow).values(**values))
            return session.query(FineTuningJobRow).one()

    return change


@pytest.fixture
def printed(row, object_store):
    """What the job's trainer has printed, as a worker keeps it: in chunks of these texts."""

    def keep(*texts):
        prefix, at = row(attempt=1).prefix, 0
        for text in texts:
            object_store.put_bytes(chunk_key(prefix, at, 1, at), text.encode())
            at += len(text.encode())

    return keep


async def test_a_job_that_printed_nothing_yet_has_an_empty_log(api, job):
    answer = (await api.get(f"{job}:logs")).json()
    assert answer == {"text": "", "offset": "0", "nextOffset": "0", "complete": False}


async def test_the_log_is_read_on_from_where_the_last_page_ended(api, job, printed, row):
    printed("step 1\n")
    first = (await api.get(f"{job}:logs")).json()
    assert (first["text"], first["nextOffset"], first["complete"]) == ("step 1\n", "7", False)
    printed("step 1\n", "step 2\n")
    row(state="FAILED")
    second = (await api.get(f"{job}:logs", params={"offset": first["nextOffset"]})).json()
    assert (second["text"], second["offset"], second["complete"]) == ("step 2\n", "7", True)


async def test_a_page_is_bounded_and_names_the_next(api, job, printed, row):
    half = "x" * (PAGE_BYTES // 2 - 1) + "\n"
    printed(half, half, "end\n")
    row(state="COMPLETED")
    page = (await api.get(f"{job}:logs")).json()
    assert (len(page["text"]), page["complete"]) == (PAGE_BYTES, False)
    assert (await api.get(f"{job}:logs?offset={page['nextOffset']}")).json()["text"] == "end\n"


async def test_the_last_lines_alone(api, job, printed):
    printed("a\nb\n", "c\n")
    answer = (await api.get(f"{job}:logs?tailLines=2")).json()
    assert (answer["text"], answer["offset"], answer["nextOffset"]) == ("b\nc\n", "2", "6")


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=x", "tailLines=-1", "tailLines=10001", "offset=1&tailLines=1"]
)
async def test_a_place_that_makes_no_sense_is_refused(api, job, query):
    answer = await api.get(f"{job}:logs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_another_account_sees_no_log(http, job, printed, other_key):
    printed("private\n")
    http.headers["Authorization"] = f"Bearer {other_key}"
    answer = await http.get(f"{job}:logs")
    assert answer.status_code == 404
    assert "private" not in answer.text


async def test_metrics_are_what_the_trainer_logged(api, job, row, object_store):
    prefix = row(attempt=1).prefix
    object_store.put_bytes(prefix + "metrics.jsonl", b'{"step": 1, "loss": 2.5}\n')
    assert (await api.get(f"{job}:metrics")).json() == {"metrics": [{"step": 1, "loss": 2.5}]}
