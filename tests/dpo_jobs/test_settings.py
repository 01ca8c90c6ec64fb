"""Preference tuning jobs: what is asked for is what is trained, and what is refused by name."""

from __future__ import annotations

import json
import uuid

import pytest
from sqlalchemy import select

from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from tests.dpo_jobs.conftest import BASE, JOBS, pairs
from workers.reconcile.fine_tuning.spec import job_spec
from workers.training.config import JobSpec, Preference


@pytest.fixture
def told(db):
    """What the trainer of the only job is told."""

    def of():
        with db.session() as session:
            return session.scalars(select(FineTuningJobRow)).one().settings

    return of


async def test_a_job_gets_its_defaults_and_full_names(api, told):
    job = (await api.post(f"{JOBS}?dpoJobId=first", json=pairs())).json()
    training = job["trainingConfig"]
    assert job["name"] == "accounts/hearth/dpoJobs/first"
    assert (job["state"], job["createdBy"]) == ("JOB_STATE_CREATING", "admin@localhost")
    assert (job["dataset"], training["baseModel"]) == ("accounts/hearth/datasets/pairs", BASE)
    assert training["outputModel"] == "accounts/hearth/models/first"
    assert (training["epochs"], training["loraRank"], training["loraAlpha"]) == (1, 8, 16)
    assert (training["maxContextLength"], training["batchSizeSamples"]) == (512, 16)
    assert training["learningRate"] == pytest.approx(1e-5)
    assert job["lossConfig"]["method"] == "DPO"
    assert job["lossConfig"]["dpo"]["beta"] == 0.1
    assert "orpo" not in job["lossConfig"]
    assert told()["preference"] == {"method": "dpo", "beta": 0.1}
    assert (await api.get(f"{JOBS}/first")).json() == job


async def test_a_job_without_an_id_names_its_model_after_the_one_it_gets(api):
    job = (await api.post(JOBS, json=pairs())).json()
    job_id = job["name"].rsplit("/", 1)[1]
    assert uuid.UUID(job_id)
    assert job["trainingConfig"]["outputModel"] == f"accounts/hearth/models/{job_id}"


async def test_every_setting_reaches_the_trainer(api, db, told):
    training = {
        "outputModel": "accounts/hearth/models/polite",
        "jinjaTemplate": "{{ messages }}",
        "learningRate": 0.05,
        "maxContextLength": 100,
        "loraRank": 16,
        "epochs": 3,
        "gradientAccumulationSteps": 4,
        "learningRateWarmupSteps": 5,
        "batchSizeSamples": 6,
        "optimizerWeightDecay": 0.1,
        "loraAlpha": 24,
        "loraDropout": 0.05,
        "loraTargetModules": ["q_proj", "v_proj"],
        "baseModelWeightPrecision": "NF4",
        "acceleratorCount": 2,
    }
    others = {
        "displayName": "Politeness",
        "evaluationDataset": "accounts/hearth/datasets/held-out",
        "earlyStop": True,
        "lossConfig": {"method": "DPO", "dpo": {"beta": 0.3}},
        "priority": 7,
    }
    job = (await api.post(JOBS, json=pairs(training=training, **others))).json()
    assert {name: job["trainingConfig"][name] for name in training} == training
    assert {name: job[name] for name in ("displayName", "evaluationDataset", "earlyStop", "priority")} == {
        name: others[name] for name in ("displayName", "evaluationDataset", "earlyStop", "priority")
    }
    settings = told()
    assert settings["templates"] == {"jinja_template": "{{ messages }}"}
    assert (settings["batch_size"], settings["batch_tokens"], settings["cutoff_length"]) == (24, 0, 100)
    assert (settings["warmup_steps"], settings["weight_decay"]) == (5, 0.1)
    assert (settings["lora_rank"], settings["lora_alpha"], settings["lora_dropout"]) == (16, 24, 0.05)
    assert (settings["lora_target_modules"], settings["evaluation"]) == (["q_proj", "v_proj"], True)
    assert (settings["preference"], settings["tuning_method"]) == ({"method": "dpo", "beta": 0.3}, "QLORA")
    assert settings["accelerator_count"] == 2


async def test_the_trainer_understands_what_it_is_told(api, db, settings):
    training = {"loraDropout": 0.05, "loraTargetModules": ["q_proj"], "batchSize": 2048}
    training |= {"gradientAccumulationSteps": 4, "acceleratorCount": 2}
    made = await api.post(JOBS, json=pairs(training=training, lossConfig={"dpo": {"beta": 0.3}}))
    assert made.status_code == 200, made.text
    file = {"size": 1, "sha256": ""}
    with db.session() as session:
        for table in (ModelRow, DatasetRow):
            for row in session.scalars(select(table)):
                row.files = {"file": file}
        document = job_spec(session, session.scalars(select(FineTuningJobRow)).one(), settings)
    spec = JobSpec.model_validate_json(json.dumps(document))
    assert (spec.kind, spec.preference) == ("preference", Preference(method="dpo", beta=0.3))
    assert (spec.lora_dropout, spec.lora_target_modules, spec.batch_tokens) == (0.05, ("q_proj",), 2048)
    assert (spec.processes, spec.batch_size) == (2, 4)


async def test_a_job_logs_to_weights_and_biases_where_it_is_asked_to(api, app_settings, told):
    app_settings.wandb_mode = "offline"  # where no key is needed
    answer = await api.post(JOBS, json=pairs(wandbConfig={"enabled": True, "project": "p"}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["wandbConfig"]["project"] == "p"
    assert told()["wandb"]["project"] == "p"


async def test_tokens_of_a_batch_make_packs_of_pairs(api, told):
    job = (await api.post(JOBS, json=pairs(training={"batchSize": 1024}))).json()
    assert (job["trainingConfig"]["batchSize"], job["trainingConfig"]["batchSizeSamples"]) == (1024, 0)
    assert (told()["batch_tokens"], told()["batch_size"], told()["micro_batch_size"]) == (1024, 1, 1)


async def test_orpo_is_chosen_by_its_loss(api, told):
    job = (await api.post(JOBS, json=pairs(lossConfig={"method": "ORPO", "orpo": {"lambda": 0.25}}))).json()
    assert job["lossConfig"]["orpo"] == {"lambda": 0.25}
    assert "dpo" not in job["lossConfig"]
    assert told()["preference"] == {"method": "orpo", "odds_weight": 0.25}


async def test_orpo_has_a_weight_of_its_own(api, told):
    assert (await api.post(JOBS, json=pairs(lossConfig={"method": "ORPO"}))).status_code == 200
    assert told()["preference"] == {"method": "orpo", "odds_weight": 0.1}


async def test_a_job_may_go_on_from_an_addon(api):
    body = {"dataset": "pairs", "trainingConfig": {"warmStartFrom": "addon"}}
    training = (await api.post(JOBS, json=body)).json()["trainingConfig"]
    assert (training["warmStartFrom"], training["baseModel"]) == ("accounts/hearth/models/addon", "")
    assert training["loraRank"] == 4
    for name, value in (("loraAlpha", 8), ("loraTargetModules", ["q_proj"])):
        answer = await api.post(JOBS, json=body | {"trainingConfig": {"warmStartFrom": "addon", name: value}})
        assert answer.status_code == 400
        assert f"{name} is the addon's own" in answer.json()["message"]


async def test_what_says_nothing_is_taken_and_so_is_what_servers_say(api):
    ignored = {
        "baseModelWeightPrecision": "WEIGHT_PRECISION_UNSPECIFIED",
        "acceleratorType": "ACCELERATOR_TYPE_UNSPECIFIED",
        "acceleratorCount": 0,
        "isIntermediate": False,
        "toleration": "",
        "loraRank": None,
        "region": "REGION_UNSPECIFIED",
        "trainerShardingScheme": {"tensorParallelism": 1, "sequenceParallelism": False},
    }
    answer = await api.post(JOBS, json=pairs(training=ignored, wandbConfig={"enabled": False}))
    job = answer.json()
    assert not {"acceleratorType", "isIntermediate", "toleration"} & job["trainingConfig"].keys()
    assert job["trainingConfig"]["acceleratorCount"] == 1
    again = await api.post(JOBS, json={**job, "trainingConfig": job["trainingConfig"] | {"outputModel": "b"}})
    assert again.status_code == 200, again.text


TRAINING_REFUSALS = [
    ({"baseModel": ""}, 400, "exactly one"),
    ({"warmStartFrom": "addon"}, 400, "exactly one"),
    ({"baseModel": "addon"}, 400, "warmStartFrom"),
    ({"baseModel": "accounts/rival/models/base"}, 404, "not found"),
    ({"jinjaTemplate": "{% for %}"}, 400, "line 1"),
    ({"epochs": 101}, 400, "epochs"),
    ({"epochs": -1}, 400, "epochs"),
    ({"learningRate": 0.2}, 400, "learningRate"),
    ({"loraRank": 0}, 400, "full-parameter"),
    ({"loraRank": 65}, 400, "loraRank"),
    ({"loraDropout": 1}, 400, "loraDropout"),
    ({"loraTargetModules": ["lm_head"]}, 400, "lm_head cannot be tuned"),
    ({"maxContextLength": 513}, 400, "trainingConfig.maxContextLength is more than"),
    ({"maxContextLength": 1}, 400, "trainingConfig.maxContextLength must be at least 2"),
    ({"batchSize": 1023}, 400, "trainingConfig.batchSize 1023 does not hold one pair"),
    ({"batchSize": 2048, "batchSizeSamples": 8}, 400, "give one of them"),
    ({"batchSizeSamples": 1024, "gradientAccumulationSteps": 8}, 400, "8192"),
    ({"optimizerWeightDecay": 1.1}, 400, "optimizerWeightDecay"),
    ({"outputModel": "base"}, 409, "outputModel"),
    ({"outputModel": "Bad_Id"}, 400, "outputModel"),
    ({"region": "US_IOWA_1"}, 400, "trainingConfig.region is not supported"),
    ({"acceleratorCount": 3}, 400, "trainingConfig.acceleratorCount 3 does not divide a step of 16"),
    ({"acceleratorCount": 65}, 400, "acceleratorCount"),
    ({"acceleratorType": "NVIDIA_H100_80GB"}, 400, "trainingConfig.acceleratorType is not supported"),
    ({"baseModelWeightPrecision": "INT8"}, 400, "baseModelWeightPrecision INT8 is not supported"),
    ({"isIntermediate": True}, 400, "trainingConfig.isIntermediate is not supported"),
    ({"toleration": "x"}, 400, "trainingConfig.toleration is not supported"),
    (
        {"trainerShardingScheme": {"pipelineParallelism": 2}},
        400,
        "trainingConfig.trainerShardingScheme.pipelineParallelism is not supported",
    ),
    ({"trainerShardingScheme": {"sequenceParallelism": True}}, 400, "sequenceParallelism is not supported"),
    ({"colour": "red"}, 400, 'unknown field "trainingConfig.colour"'),
]
REFUSALS = [
    ({"dataset": ""}, 400, "dataset is required"),
    ({"dataset": "none"}, 404, "none"),
    ({"dataset": "accounts/rival/datasets/pairs"}, 404, "not found"),
    ({"dataset": "chats"}, 400, "has format CHAT; this job reads PREFERENCE"),
    ({"evaluationDataset": "chats"}, 400, "reads PREFERENCE"),
    ({"evaluationDataset": "held-out", "evalAutoCarveout": True}, 400, "evalAutoCarveout has no effect"),
    ({"earlyStop": True}, 400, "evaluationDataset or evalAutoCarveout"),
    ({"lossConfig": {"method": "GRPO"}}, 400, "lossConfig.method GRPO is not supported"),
    ({"lossConfig": {"method": "DAPO"}}, 400, "lossConfig.method DAPO is not supported"),
    ({"lossConfig": {"method": "GSPO_TOKEN"}}, 400, "lossConfig.method GSPO_TOKEN is not supported"),
    ({"lossConfig": {"method": "PPO"}}, 400, "none of METHOD_UNSPECIFIED"),
    ({"lossConfig": {"klBeta": 0.1}}, 400, "lossConfig.klBeta is not supported"),
    ({"lossConfig": {"dpo": {"beta": 1.5}}}, 400, "beta"),
    ({"lossConfig": {"dpo": {"beta": -0.1}}}, 400, "beta"),
    ({"lossConfig": {"dpo": {"refCacheConcurrency": 2}}}, 400, "lossConfig.dpo.refCacheConcurrency is not"),
    ({"lossConfig": {"dpo": {"refCacheBatchSize": 2}}}, 400, "lossConfig.dpo.refCacheBatchSize is not"),
    ({"lossConfig": {"orpo": {"lambda": 0.2}}}, 400, "lossConfig.orpo has no effect: the method is DPO"),
    (
        {"lossConfig": {"method": "ORPO", "dpo": {"beta": 0.2}}},
        400,
        "lossConfig.dpo has no effect: the method is ORPO",
    ),
    ({"lossConfig": {"method": "ORPO", "orpo": {"lambda": -1}}}, 400, "lambda"),
    ({"awsS3Config": {"iamRoleArn": "arn"}}, 400, "awsS3Config is not supported"),
    ({"azureBlobStorageConfig": {"tenantId": "t"}}, 400, "azureBlobStorageConfig is not supported"),
    ({"rendererHuggingFaceRepoId": "x/y"}, 400, "set jinjaTemplate"),
    ({"purpose": "PURPOSE_PILOT"}, 400, "purpose is not supported"),
    ({"useReservation": True}, 400, "useReservation is not supported"),
    ({"reservationTarget": "r"}, 400, "reservationTarget is not supported"),
    ({"priority": 101}, 400, "priority"),
    ({"colour": "red"}, 400, 'unknown field "colour"'),
]


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}:estimateCost"])
async def test_what_cannot_be_honoured_is_refused_by_name(api, db, path):
    cases = [(pairs(**change), change, *told) for change, *told in REFUSALS]
    cases += [(pairs(training=change), change, *told) for change, *told in TRAINING_REFUSALS]
    for body, change, status, words in cases:
        answer = await api.post(path, json=body)
        assert answer.status_code == status, (change, answer.text)
        assert words in answer.json()["message"], (change, answer.text)
    with db.session() as session:
        assert session.scalars(select(FineTuningJobRow)).all() == []
