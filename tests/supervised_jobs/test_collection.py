"""Supervised fine-tuning jobs as a collection: apart from the older one, listed, measured and priced."""

from __future__ import annotations

import httpx

from controlplane.prices import Prices
from controlplane.resources.fine_tuning_jobs.states import ACTIVE
from controlplane.resources.supervised_fine_tuning_jobs.listing import LISTING
from controlplane.rest.filters.fields import Kind
from tests.supervised_jobs.paths import ACCOUNT, BASE, CHATS, JOBS, SEED_CHATS, SEED_JOBS


async def test_the_two_collections_do_not_know_each_others_jobs(api, job):
    made = await api.post(f"{SEED_JOBS}?fineTuningJobId=job", json={**SEED_CHATS, "modelId": "other"})
    assert made.status_code == 200
    seed_only = await api.post(f"{SEED_JOBS}?fineTuningJobId=seed-only", json=SEED_CHATS)
    assert seed_only.status_code == 200

    listed = (await api.get(JOBS)).json()
    assert [found["name"] for found in listed["supervisedFineTuningJobs"]] == [job.removeprefix("/v1/")]
    assert listed["totalSize"] == 1
    assert (await api.get(SEED_JOBS)).json()["totalSize"] == 2
    for method, verb in (("GET", ""), ("DELETE", ""), ("POST", ":cancel"), ("POST", ":resume")):
        answer = await api.request(method, f"{JOBS}/seed-only{verb}")
        assert answer.status_code == 404, (method, verb)
    assert (await api.delete(f"{SEED_JOBS}/job")).status_code == 200
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CREATING"
    assert (await api.get(f"{SEED_JOBS}/job")).json()["state"] == "DELETING"


async def test_jobs_are_filtered_and_ordered_by_whatever_they_show(api, app_settings, job, put):
    app_settings.prices = Prices.model_validate({"trainedTokens": {"default": "1"}})
    body = {**CHATS, "learningRate": 0.01, "epochs": 2, "evalAutoCarveout": True, "batchSize": 600}
    assert (await api.post(f"{JOBS}?supervisedFineTuningJobId=b", json=body)).status_code == 200
    put("b", state="EARLY_STOPPED", progress={"epoch": 1.5, "tokens_seen": 70})
    for wanted in (
        "learning_rate = 0.01",
        "epochs > 1 AND eval_auto_carveout = true",
        "batch_size >= 600 AND batch_size_samples = 0",
        "state = JOB_STATE_EARLY_STOPPED",
        'output_model = "accounts/hearth/models/b"',
        "estimated_cost.units = 3 AND estimated_cost.nanos = 0",
        "job_progress.epoch = 1 AND job_progress.input_tokens > 69",
        "max_context_length = 512 AND NOT state = JOB_STATE_CREATING",
    ):
        answer = (await api.get(JOBS, params={"filter": wanted})).json()
        names = [found["name"] for found in answer.get("supervisedFineTuningJobs", [answer])]
        assert names == ["accounts/hearth/supervisedFineTuningJobs/b"], wanted
    for path in LISTING.fields:
        answer = await api.get(JOBS, params={"orderBy": path})
        whole = LISTING.fields[path].kind in (Kind.MESSAGE, Kind.TEXTS)
        assert answer.status_code == (400 if whole else 200), (path, answer.text)
        assert whole or answer.json()["totalSize"] == 2


async def test_an_id_is_taken_once_in_each_collection(api, job):
    again = await api.post(f"{JOBS}?supervisedFineTuningJobId=job", json={**CHATS, "outputModel": "new"})
    assert (again.status_code, again.json()["code"]) == (409, 6)


async def test_jobs_of_both_collections_do_not_make_the_same_model(api, job, put):
    for state in ACTIVE:
        put("job", state=state)
        answer = await api.post(SEED_JOBS, json={**SEED_CHATS, "modelId": "job"})
        assert (answer.status_code, answer.json()["code"]) == (409, 6), state


async def test_what_an_active_job_reads_is_not_deleted(api, job, put):
    for state in ACTIVE:
        put("job", state=state)
        for path in ("datasets/chats", "models/base"):
            answer = await api.delete(f"{ACCOUNT}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (400, 9), (state, path)


async def test_nobody_else_sees_or_touches_a_job(api, job, other_key):
    rival = {"Authorization": f"Bearer {other_key}"}
    for method, path in (
        ("GET", job),
        ("DELETE", job),
        ("POST", f"{job}:cancel"),
        ("POST", f"{job}:pause"),
        ("POST", f"{job}:resume"),
        ("GET", JOBS),
        ("POST", JOBS),
        ("POST", f"{JOBS}:estimateCost"),
    ):
        json = CHATS if path in (JOBS, f"{JOBS}:estimateCost") and method == "POST" else None
        answer = await api.request(method, path, json=json, headers=rival)
        assert answer.status_code == 404, (method, path)
    assert (await api.get(job)).json()["state"] == "JOB_STATE_CREATING"


async def test_progress_is_the_trainers_own(api, job, put):
    put(
        "job",
        state="RUNNING",
        attempt=1,
        progress={
            "phase": "TRAINING",
            "step": 7,
            "max_steps": 9,
            "epoch": 0.75,
            "rows": 100,
            "tokens_seen": 1234,
        },
    )
    progress = (await api.get(job)).json()["jobProgress"]
    assert (progress["percent"], progress["epoch"], progress["inputTokens"]) == (77, 0, 1234)
    assert (progress["totalInputRequests"], progress["totalProcessedRequests"]) == (100, 75)
    put("job", state="EARLY_STOPPED")
    assert (await api.get(job)).json()["jobProgress"]["percent"] == 100


async def test_the_metrics_file_is_named_once_it_is_there_and_can_be_read(api, job, put, object_store):
    row = put("job", state="RUNNING", attempt=1)
    assert (await api.get(job)).json()["metricsFileSignedUrl"] == ""
    object_store.put_bytes(row.prefix + "metrics.jsonl", b'{"step": 1}\n')
    url = (await api.get(job)).json()["metricsFileSignedUrl"]
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(url)).text == '{"step": 1}\n'


async def test_a_job_is_estimated_by_tokens_and_epochs(api, app_settings):
    app_settings.prices = Prices.model_validate({"trainedTokens": {BASE: "0.50", "default": "9"}})
    answer = await api.post(f"{JOBS}:estimateCost", json={**CHATS, "epochs": 3})
    assert answer.json() == {
        "estimatedCost": {"currencyCode": "USD", "units": "2", "nanos": 250_000_000},
        "tokens": "4500000",
        "tokensBasis": "ESTIMATED",
    }
    assert (await api.get(JOBS)).json()["totalSize"] == 0
    job = (await api.post(JOBS, json={"dataset": "chats", "warmStartFrom": "addon", "epochs": 3})).json()
    assert job["estimatedCost"] == answer.json()["estimatedCost"]


async def test_without_prices_a_job_costs_nothing(api):
    answer = await api.post(f"{JOBS}:estimateCost", json=CHATS)
    assert answer.json()["estimatedCost"] == {"currencyCode": "USD", "units": "0", "nanos": 0}
    assert "estimatedCost" not in (await api.post(JOBS, json=CHATS)).json()
