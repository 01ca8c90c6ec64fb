"""Supervised fine-tuning jobs: the newer words for the same jobs, and what they refuse."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.resources.tables import FineTuningJobRow, ModelRow
from tests.supervised_jobs.paths import BASE, CHATS, JOBS


async def test_a_job_gets_its_defaults_and_full_names(api):
    answer = await api.post(f"{JOBS}?supervisedFineTuningJobId=first", json=CHATS)
    job = answer.json()
    assert job["name"] == "accounts/hearth/supervisedFineTuningJobs/first"
    assert job["state"] == "JOB_STATE_CREATING"
    assert (job["epochs"], job["loraRank"], job["maxContextLength"]) == (1, 8, 512)
    assert (job["learningRate"], job["batchSize"], job["batchSizeSamples"]) == (1e-4, 0, 16)
    assert job["gradientAccumulationSteps"] == 1
    assert job["outputModel"] == "accounts/hearth/models/first"
    assert (job["dataset"], job["baseModel"]) == ("accounts/hearth/datasets/chats", BASE)
    assert job["createdBy"] == "admin@localhost"
    assert not {"wandbConfig", "awsS3Config", "jobProgress", "completedTime"} & job.keys()
    assert (await api.get(f"{JOBS}/first")).json() == job


async def test_a_job_without_an_id_gets_a_random_one_and_names_its_model_after_it(api):
    job = (await api.post(JOBS, json=CHATS)).json()
    job_id = job["name"].rsplit("/", 1)[1]
    assert len(job_id) == 36
    assert job["outputModel"] == f"accounts/hearth/models/{job_id}"


async def test_what_is_asked_for_is_what_the_trainer_is_told(api, db):
    body = {
        **CHATS,
        "displayName": "Tickets",
        "outputModel": "accounts/hearth/models/tickets",
        "jinjaTemplate": "{{ messages }}",
        "earlyStop": True,
        "evalAutoCarveout": True,
        "epochs": 3,
        "learningRate": 0.05,
        "maxContextLength": 100,
        "loraRank": 16,
        "batchSizeSamples": 6,
        "gradientAccumulationSteps": 4,
        "learningRateWarmupSteps": 5,
        "optimizerWeightDecay": 0.1,
        "baseModelWeightPrecision": "NF4",
        "acceleratorCount": 3,
        "nodes": 1,
    }
    job = (await api.post(JOBS, json=body)).json()
    assert {name: job[name] for name in body.keys() - CHATS.keys()} == {
        name: body[name] for name in body.keys() - CHATS.keys()
    }
    with db.session() as session:
        row = session.scalars(select(FineTuningJobRow)).one()
    told = row.settings
    assert (row.kind, told["templates"]) == ("conversation", {"jinja_template": "{{ messages }}"})
    assert (told["batch_size"], told["batch_tokens"]) == (24, 0)
    assert (told["cutoff_length"], told["warmup_steps"], told["weight_decay"]) == (100, 5, 0.1)
    assert (told["evaluation"], told["early_stop"], told["lora_rank"]) == (True, True, 16)
    assert (told["tuning_method"], told["accelerator_count"]) == ("QLORA", 3)


async def test_a_large_base_is_kept_in_four_bits_unless_the_job_asks_otherwise(api, db):
    with db.session() as session:
        base = session.scalars(select(ModelRow).where(ModelRow.id == "base")).one()
        base.facts = {**base.facts, "parameter_count": 70_000_000_000}
    for asked, held in (({}, "NF4"), ({"baseModelWeightPrecision": "BFLOAT16"}, "BFLOAT16")):
        job = (await api.post(JOBS, json={**CHATS, **asked})).json()
        assert job["baseModelWeightPrecision"] == held
        found = await api.get(JOBS, params={"filter": f'baseModelWeightPrecision="{held}"'})
        assert [one["name"] for one in found.json()["supervisedFineTuningJobs"]] == [job["name"]]


async def test_tokens_of_a_batch_make_packs_of_rows(api, db):
    body = {**CHATS, "batchSize": 1024, "gradientAccumulationSteps": 2}
    job = (await api.post(JOBS, json=body)).json()
    assert (job["batchSize"], job["batchSizeSamples"], job["gradientAccumulationSteps"]) == (1024, 0, 2)
    with db.session() as session:
        told = session.scalars(select(FineTuningJobRow)).one().settings
    assert (told["batch_tokens"], told["batch_size"], told["micro_batch_size"]) == (1024, 2, 1)


async def test_rows_of_prompt_and_completion_train_a_completion(api, db):
    assert (await api.post(JOBS, json={**CHATS, "dataset": "texts"})).status_code == 200
    with db.session() as session:
        row = session.scalars(select(FineTuningJobRow)).one()
    assert row.kind == "text_completion"
    assert row.settings["templates"] == {"input_template": "{prompt}", "output_template": "{completion}"}


async def test_a_job_may_go_on_from_an_addon(api):
    job = (await api.post(JOBS, json={"dataset": "chats", "warmStartFrom": "addon"})).json()
    assert (job["warmStartFrom"], job["baseModel"]) == ("accounts/hearth/models/addon", "")
    assert job["loraRank"] == 4


async def test_what_says_nothing_is_taken_and_so_is_what_servers_say(api):
    ignored = {
        "baseModelWeightPrecision": "WEIGHT_PRECISION_UNSPECIFIED",
        "acceleratorType": "ACCELERATOR_TYPE_UNSPECIFIED",
        "acceleratorCount": 0,
        "customImageTag": "",
        "precision": "PRECISION_UNSPECIFIED",
        "extraArgs": [],
        "metricsFileSignedUrl": "https://elsewhere.example/",
        "wandbConfig": {"enabled": False},
        "loraRank": None,
        "region": "REGION_UNSPECIFIED",
    }
    job = (await api.post(JOBS, json={**CHATS, **ignored})).json()
    assert not {"acceleratorType", "extraArgs", "precision"} & job.keys()
    assert (job["metricsFileSignedUrl"], job["loraRank"]) == ("", 8)
    assert (job["baseModelWeightPrecision"], job["acceleratorCount"]) == ("BFLOAT16", 1)


REFUSALS = [
    ({"dataset": ""}, 400, "dataset is required"),
    ({"dataset": "none"}, 404, "none"),
    ({"dataset": "accounts/rival/datasets/chats"}, 404, "not found"),
    ({"dataset": "odd"}, 400, "completion"),
    ({"dataset": "texts", "jinjaTemplate": "{{ messages }}"}, 400, "reads CHAT"),
    ({"evaluationDataset": "texts"}, 400, "reads CHAT"),
    ({"evaluationDataset": "held-out", "evalAutoCarveout": True}, 400, "evalAutoCarveout has no effect"),
    ({"earlyStop": True}, 400, "evaluationDataset or evalAutoCarveout"),
    ({"baseModel": ""}, 400, "exactly one"),
    ({"warmStartFrom": "addon"}, 400, "exactly one"),
    ({"baseModel": "addon"}, 400, "warmStartFrom"),
    ({"jinjaTemplate": "{% for %}"}, 400, "line 1"),
    ({"epochs": 101}, 400, "epochs"),
    ({"epochs": 1.5}, 400, "epochs"),
    ({"epochs": -1}, 400, "epochs"),
    ({"learningRate": 0.2}, 400, "learningRate"),
    ({"loraRank": 0}, 400, "full-parameter"),
    ({"loraRank": 65}, 400, "loraRank"),
    ({"maxContextLength": 513}, 400, "maxContextLength is more than"),
    ({"maxContextLength": 1}, 400, "maxContextLength must be at least 2"),
    ({"batchSize": 511}, 400, "batchSize 511 does not hold one example"),
    ({"batchSize": 1024, "batchSizeSamples": 8}, 400, "give one of them"),
    ({"batchSizeSamples": 1024, "gradientAccumulationSteps": 8}, 400, "8192"),
    ({"optimizerWeightDecay": 1.1}, 400, "optimizerWeightDecay"),
    ({"nodes": 2}, 400, "nodes is not supported above 1"),
    ({"outputModel": "base"}, 409, "outputModel"),
    ({"outputModel": "accounts/rival/models/mine"}, 404, "not found"),
    ({"outputModel": "Bad_Id"}, 400, "outputModel"),
    ({"isTurbo": True}, 400, "isTurbo is not supported"),
    ({"awsS3Config": {"iamRoleArn": "arn"}}, 400, "awsS3Config is not supported"),
    ({"azureBlobStorageConfig": {"tenantId": "t"}}, 400, "azureBlobStorageConfig is not supported"),
    ({"mtpEnabled": True}, 400, "mtpEnabled is not supported"),
    ({"mtpNumDraftTokens": 1}, 400, "mtpNumDraftTokens is not supported"),
    ({"mtpFreezeBaseModel": True}, 400, "mtpFreezeBaseModel is not supported"),
    ({"region": "US_IOWA_1"}, 400, "region is not supported"),
    ({"acceleratorCount": 3}, 400, "acceleratorCount 3 does not divide a step of 16"),
    ({"batchSize": 1024, "acceleratorCount": 2}, 400, "acceleratorCount 2 does not divide a step of 1"),
    ({"acceleratorCount": 65}, 400, "acceleratorCount"),
    ({"acceleratorType": "NVIDIA_H100_80GB"}, 400, "acceleratorType is not supported"),
    ({"baseModelWeightPrecision": "INT8"}, 400, "baseModelWeightPrecision INT8 is not supported"),
    ({"baseModelWeightPrecision": "FP4"}, 400, "none of WEIGHT_PRECISION_UNSPECIFIED"),
    ({"customImageTag": "x"}, 400, "customImageTag is not supported"),
    ({"precision": "BF16"}, 400, "precision is not supported"),
    ({"extraArgs": ["--x"]}, 400, "extraArgs is not supported"),
    ({"rendererHuggingFaceRepoId": "x/y"}, 400, "set jinjaTemplate"),
    ({"purpose": "PURPOSE_PILOT"}, 400, "purpose is not supported"),
    ({"usePurpose": "pilot"}, 400, "usePurpose is not supported"),
    ({"useReservation": True}, 400, "useReservation is not supported"),
    ({"reservationTarget": "r"}, 400, "reservationTarget is not supported"),
    ({"samplerCheckpointSaveIntervalSteps": -1}, 400, "samplerCheckpointSaveIntervalSteps"),
    ({"wandbConfig": {"enabled": True, "project": "p"}}, 400, "wandbConfig.apiKey is required"),
    ({"wandbConfig": {"enabled": True, "apiKey": "secret-key"}}, 400, "wandbConfig.project is required"),
    ({"wandbConfig": {"apiKey": "secret-key"}}, 400, "wandbConfig has no effect unless wandbConfig.enabled"),
    (
        {"wandbConfig": {"enabled": True, "apiKey": "secret-key", "project": "p", "runId": "a/b"}},
        400,
        "wandbConfig.runId",
    ),
    ({"colour": "red"}, 400, 'unknown field "colour"'),
]


async def test_a_field_that_the_evaluation_dataset_lacks_is_told_of_that(api):
    refused = await api.post(JOBS, json={**CHATS, "dataset": "texts", "evaluationDataset": "odd"})
    assert refused.status_code == 400
    assert "not every row of accounts/hearth/datasets/odd has the field 'completion'" in refused.text
    assert refused.json()["details"][0]["fieldViolations"][0]["field"] == "evaluationDataset"


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}:estimateCost"])
async def test_what_cannot_be_honoured_is_refused_by_name(api, db, path):
    for change, status, words in REFUSALS:
        answer = await api.post(path, json={**CHATS, **change})
        assert answer.status_code == status, (change, answer.text)
        assert words in answer.json()["message"], change
        assert "secret-key" not in answer.text
    with db.session() as session:
        assert session.scalars(select(FineTuningJobRow)).all() == []
