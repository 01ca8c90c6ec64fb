"""Preference tuning jobs as a collection: what they share with other jobs, and what only they show."""

from __future__ import annotations

import httpx

from controlplane.prices import Prices
from controlplane.resources.dpo_jobs.listing import LISTING
from controlplane.resources.fine_tuning_jobs.states import ACTIVE, TRANSITIONS, job_state
from controlplane.rest.filters.fields import Kind
from tests.dpo_jobs.conftest import ACCOUNT, BASE, JOBS, pairs

SUPERVISED = f"{ACCOUNT}/supervisedFineTuningJobs"
CHATS = {"dataset": "chats", "baseModel": BASE}


async def test_no_other_collection_knows_its_jobs_nor_it_theirs(api, job):
    made = await api.post(f"{SUPERVISED}?supervisedFineTuningJobId=other", json=CHATS)
    assert made.status_code == 200
    listed = (await api.get(JOBS)).json()
    assert [found["name"] for found in listed["dpoJobs"]] == [job.removeprefix("/v1/")]
    assert (await api.get(SUPERVISED)).json()["totalSize"] == 1
    assert (await api.get(f"{ACCOUNT}/fineTuningJobs")).json()["totalSize"] == 0
    for path in (f"{JOBS}/other", f"{SUPERVISED}/job", f"{ACCOUNT}/fineTuningJobs/job"):
        assert (await api.get(path)).status_code == 404, path
    for verb in (":cancel", ":pause", ":resume"):
        assert (await api.post(f"{JOBS}/other{verb}", json={})).status_code == 404, verb
    assert (await api.get(f"{JOBS}/other:getMetricsFileEndpoint")).status_code == 404


async def test_supervised_jobs_do_not_read_pairs(api):
    answer = await api.post(SUPERVISED, json={**CHATS, "dataset": "pairs"})
    assert answer.status_code == 400
    assert "has format PREFERENCE; this job reads CHAT" in answer.json()["message"]


async def test_jobs_of_all_collections_share_the_names_of_models(api, job):
    answer = await api.post(SUPERVISED, json={**CHATS, "outputModel": "job"})
    assert (answer.status_code, answer.json()["code"]) == (409, 6)


async def test_a_job_is_cancelled_resumed_and_deleted(api, job, put):
    assert (await api.post(f"{job}:cancel", json={})).json() == {}
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CANCELLING"
    put("job", state="CANCELLED", status_code="CANCELLED")
    assert (await api.post(f"{job}:resume", json={})).json()["state"] == "JOB_STATE_PENDING"
    assert (await api.delete(job)).json() == {}
    assert (await api.get(job)).json()["state"] == "JOB_STATE_DELETING"
    refused = await api.post(f"{job}:cancel", json={})
    assert refused.json()["message"] == "cannot cancel job in state: JOB_STATE_DELETING"


async def test_every_state_has_its_name(api, job, put):
    for state in TRANSITIONS:
        put("job", state=state)
        assert (await api.get(job)).json()["state"] == job_state(state)


async def test_what_an_active_job_reads_is_not_deleted(api, job, put):
    for state in ACTIVE:
        put("job", state=state)
        for path in ("datasets/pairs", "models/base"):
            answer = await api.delete(f"{ACCOUNT}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (400, 9), (state, path)


async def test_nobody_else_sees_or_touches_a_job(api, job, other_key):
    rival = {"Authorization": f"Bearer {other_key}"}
    for method, path, body in (
        ("GET", job, None),
        ("GET", f"{job}:getMetricsFileEndpoint", None),
        ("GET", f"{job}:metrics", None),
        ("GET", f"{job}:logs", None),
        ("DELETE", job, None),
        ("POST", f"{job}:cancel", {}),
        ("POST", f"{job}:resume", {}),
        ("GET", JOBS, None),
        ("POST", JOBS, pairs()),
        ("POST", f"{JOBS}:estimateCost", pairs()),
    ):
        answer = await api.request(method, path, json=body, headers=rival)
        assert answer.status_code == 404, (method, path)
    own = JOBS.replace("hearth", "rival")
    named = {"dataset": "accounts/hearth/datasets/pairs", "trainingConfig": {"baseModel": BASE}}
    assert (await api.post(own, json=named, headers=rival)).status_code == 404
    assert (await api.get(own, headers=rival)).json()["dpoJobs"] == []
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CREATING"


async def test_jobs_are_filtered_and_ordered_by_whatever_they_show(api, job):
    body = pairs(
        training={"learningRate": 0.01, "epochs": 2, "batchSize": 1100, "loraDropout": 0.5},
        evalAutoCarveout=True,
        lossConfig={"method": "ORPO", "orpo": {"lambda": 0.5}},
        displayName="odds",
    )
    assert (await api.post(f"{JOBS}?dpoJobId=b", json=body)).status_code == 200
    for wanted in (
        "training_config.learning_rate = 0.01",
        "trainingConfig.epochs > 1 AND eval_auto_carveout = true",
        "training_config.batch_size >= 1100 AND training_config.lora_dropout = 0.5",
        'training_config.output_model = "accounts/hearth/models/b"',
        "loss_config.method = ORPO",
        "loss_config.orpo.lambda = 0.5",
        "NOT loss_config.dpo.beta = 0.1 AND loss_config.orpo:*",
        'display_name = "odds"',
    ):
        answer = (await api.get(JOBS, params={"filter": wanted})).json()
        names = [found["name"] for found in answer.get("dpoJobs", [answer])]
        assert names == ["accounts/hearth/dpoJobs/b"], wanted
    for path in LISTING.fields:
        answer = await api.get(JOBS, params={"orderBy": path})
        whole = LISTING.fields[path].kind in (Kind.MESSAGE, Kind.TEXTS)
        assert answer.status_code == (400 if whole else 200), (path, answer.text)
        assert whole or answer.json()["totalSize"] == 2


async def test_the_metrics_file_has_an_address_once_it_is_there(api, job, put, object_store):
    row = put("job", state="RUNNING", attempt=1)
    assert (await api.get(f"{job}:getMetricsFileEndpoint")).json() == {"signedUrl": ""}
    line = b'{"step": 1, "rewards/accuracies": 0.5}\n'
    object_store.put_bytes(row.prefix + "metrics.jsonl", line)
    url = (await api.get(f"{job}:getMetricsFileEndpoint")).json()["signedUrl"]
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(url)).content == line
    assert (await api.get(f"{job}:metrics")).json()["metrics"] == [{"step": 1, "rewards/accuracies": 0.5}]


async def test_a_job_is_estimated_by_tokens_and_epochs(api, app_settings):
    app_settings.prices = Prices.model_validate({"trainedTokens": {BASE: "0.50", "default": "9"}})
    answer = await api.post(f"{JOBS}:estimateCost", json=pairs(training={"epochs": 3}))
    expected = {"currencyCode": "USD", "units": "2", "nanos": 250_000_000}
    assert answer.json()["estimatedCost"] == expected
    assert (await api.get(JOBS)).json()["totalSize"] == 0
    job = (await api.post(JOBS, json=pairs(training={"epochs": 3}))).json()
    assert job["estimatedCost"] == expected
