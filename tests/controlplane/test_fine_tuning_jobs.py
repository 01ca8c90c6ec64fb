"""Fine-tuning jobs: what a request may say, and what it is told when it cannot work."""

from __future__ import annotations

import pytest
from pydantic.alias_generators import to_snake
from sqlalchemy import select

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from workers.reconcile.fine_tuning.spec import job_spec

JOBS = "/v1/accounts/hearth/fineTuningJobs"
BASE = "accounts/hearth/models/base"
CONVERSATION = {"dataset": "chats", "baseModel": BASE, "conversation": {}}
COMPLETION = {
    "dataset": "texts",
    "baseModel": BASE,
    "textCompletion": {"inputTemplate": "Q: {question}", "outputTemplate": "answer"},
}


@pytest.fixture(autouse=True)
def inputs(db, admin_key):
    """A tunable base, one that is not, an addon, and a dataset of each kind."""
    facts = {
        "supports_lora": True,
        "architecture": "LlamaForCausalLM",
        "parameter_count": 10,
        "context_length": 512,
    }
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        base = ModelRow(
            account_id="hearth",
            id="base",
            kind="HF_BASE_MODEL",
            state="READY",
            facts=facts,
            context_length=512,
        )
        session.add(base)
        session.flush()
        session.add_all(
            [
                ModelRow(account_id="hearth", id="half", kind="HF_BASE_MODEL", state="UPLOADING"),
                ModelRow(
                    account_id="hearth",
                    id="fixed",
                    kind="HF_BASE_MODEL",
                    state="READY",
                    facts={**facts, "supports_lora": False},
                ),
                ModelRow(
                    account_id="hearth",
                    id="addon",
                    kind="HF_PEFT_ADDON",
                    state="READY",
                    facts={"r": 4},
                    base_model_uid=base.uid,
                ),
                DatasetRow(account_id="hearth", id="chats", state="READY", format="CHAT", example_count=100),
                DatasetRow(
                    account_id="hearth",
                    id="texts",
                    state="READY",
                    format="COMPLETION",
                    example_count=100,
                    report={"fields": ["answer", "question"]},
                ),
                DatasetRow(account_id="hearth", id="half", state="UPLOADING", format="CHAT"),
            ]
        )


async def test_a_job_gets_the_base_models_defaults(api):
    job = (await api.post(f"{JOBS}?fineTuningJobId=first", json=CONVERSATION)).json()
    assert job["name"] == f"{JOBS.removeprefix('/v1/')}/first"
    assert job["state"] == "CREATING"
    assert (job["epochs"], job["learningRate"], job["loraRank"], job["batchSize"]) == (1, 1e-4, 8, 16)
    assert (job["cutoffLength"], job["loraAlpha"]) == (512, 16)
    assert job["modelId"].startswith("ft-")
    assert job["dataset"] == "accounts/hearth/datasets/chats"


async def test_a_large_base_is_kept_in_four_bits_unless_the_job_asks_otherwise(api, db):
    with db.session() as session:
        base = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
        base.facts = {**base.facts, "parameter_count": 70_000_000_000}
    job = (await api.post(JOBS, json=CONVERSATION)).json()
    assert (job["tuningMethod"], job["batchSize"], job["learningRate"]) == ("QLORA", 8, 2e-5)
    asked = (await api.post(JOBS, json={**CONVERSATION, "tuningMethod": "LORA"})).json()
    assert asked["tuningMethod"] == "LORA"


async def test_settings_beyond_the_originals_are_kept_and_passed_to_the_trainer(api, db, settings):
    own = {
        "tuningMethod": "QLORA",
        "seed": 7,
        "loraDropout": 0.1,
        "weightDecay": 0.01,
        "gradientAccumulationSteps": 2,
        "acceleratorCount": 2,
    }
    job = (await api.post(JOBS, json={**CONVERSATION, **own})).json()
    assert {name: job[name] for name in own} == own
    assert (job["batchSize"], "effectiveSettings" in job) == (16, False)
    with db.session() as session:
        document = job_spec(session, session.scalars(select(FineTuningJobRow)).one(), settings)
    told = ("quantize_base", "seed", "lora_dropout", "weight_decay", "batch_size", "processes")
    assert [document[name] for name in told] == [True, 7, 0.1, 0.01, 32, 2]


async def test_every_setting_reaches_the_trainer_as_it_was_given(api, db, settings):
    same = {
        "epochs": 2.5,
        "learningRate": 0.01,
        "lrSchedulerType": "linear",
        "warmupSteps": 3,
        "weightDecay": 0.02,
        "loraRank": 4,
        "loraAlpha": 24,
        "loraDropout": 0.2,
        "loraTargetModules": ["q_proj"],
        "batchSize": 32,
        "microBatchSize": 4,
        "cutoffLength": 300,
        "earlyStop": True,
        "evaluation": True,
        "evaluationSplit": 0.25,
        "seed": 9,
    }
    others = {
        "acceleratorCount": 4,
        "tuningMethod": "QLORA",
        "conversation": {"jinjaTemplate": "{{ messages }}"},
    }
    job = (await api.post(JOBS, json={**CONVERSATION, **same, **others})).json()
    assert {name: job[name] for name in same | others} == same | others
    with db.session() as session:
        document = job_spec(session, session.scalars(select(FineTuningJobRow)).one(), settings)
    assert {name: document[to_snake(name)] for name in same} == same
    assert (document["processes"], document["quantize_base"]) == (4, True)
    assert (document["kind"], document["jinja_template"]) == ("conversation", "{{ messages }}")


async def test_a_job_shows_what_its_trainer_runs_with(api, db):
    name = (await api.post(JOBS, json=CONVERSATION)).json()["name"]
    said = {"tuning_method": "LORA", "precision": "bfloat16", "processes": 1, "memory_bytes": 5}
    with db.session() as session:
        session.scalars(select(FineTuningJobRow)).one().progress = {"phase": "TRAINING", "settings": said}
    shown = (await api.get(f"/v1/{name}")).json()["effectiveSettings"]
    assert (shown["tuningMethod"], shown["precision"], shown["memoryBytes"]) == ("LORA", "bfloat16", "5")


async def test_snake_case_as_the_settings_file_has_it_is_understood(api):
    body = {"dataset": "texts", "base_model": BASE, "model_id": "mine", "lora_rank": 16, "epochs": 2.5}
    body["text_completion"] = {"input_template": "{question}", "output_template": "{answer}"}
    job = (await api.post(JOBS, json=body)).json()
    assert (job["modelId"], job["loraRank"], job["epochs"]) == ("mine", 16, 2.5)
    assert len(job["name"].rsplit("/", 1)[1]) == 32


async def test_the_query_of_older_clients_is_read(api):
    older = f"{JOBS}?fineTuningJobId=old&debug=false&updateTime=2024-10-01T00:00:00Z"
    assert (await api.post(older, json=CONVERSATION)).status_code == 200
    refused = await api.post(f"{JOBS}?debug=true", json=CONVERSATION)
    assert (refused.status_code, "debug is not supported" in refused.text) == (400, True)


async def test_a_job_may_go_on_from_an_addon(api):
    body = {"dataset": "chats", "warmStartFrom": "addon", "conversation": {}}
    job = (await api.post(JOBS, json=body)).json()
    assert (job["warmStartFrom"], job["loraRank"]) == ("accounts/hearth/models/addon", 4)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"conversation": None}, 400, "exactly one"),
        ({"textCompletion": COMPLETION["textCompletion"]}, 400, "2 are given"),
        ({"textClassification": {"text": "a", "label": "b"}}, 400, "2 are given"),
        ({"dataset": ""}, 400, "dataset"),
        ({"datasets": [{"dataset": "texts"}]}, 400, "different datasets"),
        ({"evaluationSplit": 0.3}, 400, "evaluationSplit has no effect"),
        ({"epochs": True}, 400, "epochs"),
        ({"loraRank": 10**400}, 400, "loraRank"),
        ({"dataset": "texts"}, 400, "COMPLETION"),
        ({"dataset": "half"}, 400, "not READY"),
        ({"dataset": "none"}, 404, "none"),
        ({"dataset": "accounts/rival/datasets/chats"}, 404, "not found"),
        ({"baseModel": "half"}, 400, "not READY"),
        ({"baseModel": "fixed"}, 400, "not tunable"),
        ({"baseModel": "addon"}, 400, "addon"),
        ({"baseModel": ""}, 400, "exactly one"),
        ({"warmStartFrom": "addon"}, 400, "exactly one"),
        ({"epochs": 101}, 400, "epochs"),
        ({"epochs": -1}, 400, "epochs"),
        ({"learningRate": 2}, 400, "learningRate"),
        ({"loraRank": 65}, 400, "loraRank"),
        ({"batchSize": 12}, 400, "power of 2"),
        ({"batchSize": 16, "microBatchSize": 3}, 400, "multiple"),
        ({"batchSize": 16, "acceleratorCount": 3}, 400, "acceleratorCount 3 does not divide"),
        ({"batchSize": 16, "acceleratorCount": 4, "microBatchSize": 8}, 400, "the 4 of each accelerator"),
        ({"cutoffLength": 513}, 400, "512"),
        ({"loraTargetModules": ["q_proj", "lm_head"]}, 400, "lm_head cannot be tuned"),
        ({"loraTargetModules": ["w1"]}, 400, "of LlamaForCausalLM q_proj, k_proj"),
        ({"loraDropout": 1}, 400, "loraDropout"),
        ({"tuningMethod": "FULL"}, 400, "tuningMethod"),
        ({"seed": -1}, 400, "seed"),
        ({"lrSchedulerType": "zigzag"}, 400, "lrSchedulerType"),
        ({"lrSchedulerType": "polynomial"}, 400, "would be linear"),
        ({"lrSchedulerType": "cosine_with_restarts"}, 400, "would be cosine"),
        ({"lrSchedulerType": "constant", "warmupSteps": 3}, 400, "take constant_with_warmup"),
        ({"earlyStop": True}, 400, "evaluation"),
        ({"conversation": {"jinjaTemplate": "{% for %}"}}, 400, "line 1"),
        ({"wandbProject": "x"}, 400, "wandbApiKey is required"),
        ({"wandbApiKey": "key"}, 400, "wandbProject is required"),
        ({"wandbApiKey": "a key", "wandbProject": "x"}, 400, "wandbApiKey is not an API key"),
        ({"wandbApiKey": "key", "wandbProject": "../x"}, 400, "wandbProject"),
        ({"modelId": "base"}, 409, "base"),
        ({"modelId": "Bad_Id"}, 400, "modelId"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_stored(api, db, change, status, words):
    answer = await api.post(JOBS, json={**CONVERSATION, **change})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["message"]
    with db.session() as session:
        assert session.scalars(select(FineTuningJobRow)).all() == []


async def test_a_template_that_names_a_missing_field_is_refused_with_the_fields_there_are(api):
    body = {**COMPLETION, "textCompletion": {"inputTemplate": "{prompt}", "outputTemplate": "{answer}"}}
    answer = await api.post(JOBS, json=body)
    assert answer.status_code == 400
    assert "prompt" in answer.json()["message"]
    assert "answer, question" in answer.json()["message"]


async def test_more_examples_than_allowed_are_counted_with_the_epochs(api, db):
    with db.session() as session:
        session.scalars(select(DatasetRow).where(DatasetRow.id == "chats")).one().example_count = 1_000_000
    answer = await api.post(JOBS, json={**CONVERSATION, "epochs": 3.5})
    assert "3,500,000" in answer.json()["message"]


async def test_two_running_jobs_do_not_make_the_same_model(api):
    assert (await api.post(JOBS, json={**CONVERSATION, "modelId": "mine"})).status_code == 200
    second = await api.post(JOBS, json={**CONVERSATION, "modelId": "mine"})
    assert (second.status_code, second.json()["code"]) == (409, 6)


async def test_what_a_running_job_reads_is_not_deleted(api):
    await api.post(JOBS, json=CONVERSATION)
    for path in ("datasets/chats", "models/base"):
        answer = await api.delete(f"/v1/accounts/hearth/{path}")
        assert (answer.status_code, answer.json()["code"]) == (400, 9)


async def test_an_ended_job_outlives_what_it_read(api, db):
    await api.post(f"{JOBS}?fineTuningJobId=old", json=CONVERSATION)
    with db.session() as session:
        session.scalars(select(FineTuningJobRow)).one().state = "COMPLETED"
    assert (await api.delete("/v1/accounts/hearth/datasets/chats")).status_code == 200
    assert (await api.get(f"{JOBS}/old")).json()["dataset"] == "accounts/hearth/datasets/chats"


async def test_a_job_is_listed_renamed_measured_and_deleted(api, object_store):
    await api.post(f"{JOBS}?fineTuningJobId=a", json=CONVERSATION)
    assert [job["name"] for job in (await api.get(JOBS)).json()["fineTuningJobs"]] == [f"{JOBS[4:]}/a"]
    assert (await api.patch(f"{JOBS}/a", json={"displayName": "A"})).json()["displayName"] == "A"
    assert (await api.patch(f"{JOBS}/a", json={"epochs": 3})).status_code == 400
    assert (await api.get(f"{JOBS}/a:metrics")).json() == {"metrics": []}
    assert (await api.delete(f"{JOBS}/a")).json() == {}
    assert (await api.get(f"{JOBS}/a")).json()["state"] == "DELETING"


async def test_a_tracking_key_is_never_shown(api):
    made = await api.post(JOBS, json=CONVERSATION)
    assert "wandbApiKey" not in made.json()
    sent = await api.post(JOBS, json={**CONVERSATION, "wandbApiKey": "tracking-secret"})
    assert (sent.status_code, "tracking-secret" in sent.text) == (400, False)
    field = (await api.get("/openapi.json")).json()["components"]["schemas"]["FineTuningJob-Input"]
    assert field["properties"]["wandbApiKey"]["writeOnly"]


async def test_an_update_may_repeat_what_the_job_was_made_from_in_either_form(api):
    await api.post(f"{JOBS}?fineTuningJobId=j", json={**CONVERSATION, "modelId": "out"})
    same = {"dataset": "chats", "baseModel": "base", "modelId": "accounts/hearth/models/out"}
    renamed = await api.patch(f"{JOBS}/j", json={**same, "displayName": "J"})
    assert (renamed.status_code, renamed.json().get("displayName")) == (200, "J"), renamed.text
    for field, other in (("dataset", "texts"), ("baseModel", "fixed"), ("modelId", "other"), ("dataset", "")):
        answer = await api.patch(f"{JOBS}/j", json={**same, field: other})
        assert (answer.status_code, field in answer.json()["message"]) == (400, True), answer.text
