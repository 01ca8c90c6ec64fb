"""What jobs show and leave behind: evaluations, plots, checkpoints, models of them, lineage."""

from __future__ import annotations

import hashlib
import json

import httpx
import pytest
from fireworks.training.sdk.fireworks_client import FireworksClient
from sqlalchemy import select

from controlplane.content_hash import content_sha256
from controlplane.resources.tables import DatasetRow, ModelRow
from tests.supervised_jobs.paths import BASE, CHATS, JOBS, SEED_JOBS
from workers.training.running.checkpoints import CHECKPOINT_FILES

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights", "README.md": b"# A card"}
OF_TRAINER = {**FILES, "optimizer.pt": b"moments"}
assert set(OF_TRAINER) <= set(CHECKPOINT_FILES)


def keep(store, job, place, files=FILES):
    """A checkpoint as a trainer leaves it; returns its manifest."""
    listed = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    for name, content in files.items():
        store.put_bytes(f"{job.prefix}{place}/{name}", content)
    store.put_bytes(f"{job.prefix}{place}/manifest.json", json.dumps({"files": listed}).encode())
    return listed


@pytest.fixture
def kept(put, job, object_store):
    """The job's row, with two checkpoints that are whole and one that is not."""
    row = put("job", state="RUNNING", attempt=1)
    keep(object_store, row, "samplers/sampler-10")
    keep(object_store, row, "checkpoints/checkpoint-25", OF_TRAINER)
    object_store.put_bytes(f"{row.prefix}checkpoints/checkpoint-30/optimizer.pt", b"half")
    return row


async def test_whole_checkpoints_are_listed_a_page_at_a_time(api, job, kept):
    first = (await api.get(f"{job}/checkpoints", params={"pageSize": 1})).json()
    second = (await api.get(f"{job}/checkpoints", params={"pageToken": first["nextPageToken"]})).json()
    found = first["checkpoints"] + second["checkpoints"]
    assert [(one["name"].rsplit("/", 1)[1], one["step"], one["checkpointType"]) for one in found] == [
        ("sampler-10", 10, "CHECKPOINT_TYPE_INFERENCE_LORA"),
        ("checkpoint-25", 25, "CHECKPOINT_TYPE_TRAINING_LORA"),
    ]
    assert all(one["promotable"] and one["createTime"] for one in found)
    assert (second["nextPageToken"], second["totalSize"]) == ("", 2)
    gone = await api.get(f"{job}/checkpoints", params={"pageToken": "sampler-9"})
    assert (gone.status_code, "list from the start" in gone.text) == (400, True)


async def test_a_checkpoint_is_downloaded_whole(api, job, kept):
    answer = (await api.get(f"{job}/checkpoints/checkpoint-25:getDownloadEndpoint")).json()
    assert answer["filenameToSignedUrls"].keys() == OF_TRAINER.keys()
    async with httpx.AsyncClient() as anybody:
        for name, url in answer["filenameToSignedUrls"].items():
            assert (await anybody.get(url)).content == OF_TRAINER[name]
    for absent in ("checkpoint-30", "checkpoint-1", "sampler-1", "other", "I%C2%88RX"):
        missing = await api.get(f"{job}/checkpoints/{absent}:getDownloadEndpoint")
        assert (missing.status_code, missing.json()["code"]) == (404, 5), absent


async def test_a_promoted_checkpoint_is_a_model_that_knows_where_it_comes_from(api, job, kept, db):
    asked = {"outputModel": "early", "baseModel": BASE, "asyncPromotion": True}
    answer = await api.post(f"{job}/checkpoints/checkpoint-25:promote", json=asked)
    model = answer.json()["model"]
    assert (model["name"], model["state"], model["kind"]) == (
        "accounts/hearth/models/early",
        "UPLOADING",
        "HF_PEFT_ADDON",
    )
    assert model["lineage"]["checkpoint"] == f"{job[4:]}/checkpoints/checkpoint-25"
    assert model["fineTuningJob"] == model["lineage"]["fineTuningJob"] == job[4:]
    with db.session() as session:
        row = session.scalars(select(ModelRow).where(ModelRow.id == "early")).one()
    assert row.files.keys() == FILES.keys()
    assert row.next_reconcile_at is not None
    again = await api.post(f"{job}/checkpoints/checkpoint-25:promote", json=asked)
    assert (again.status_code, again.json()["code"]) == (409, 6)


async def test_a_checkpoint_of_an_earlier_versions_job_is_promoted(api, job, kept, put):
    settings = {name: value for name, value in kept.settings.items() if name != "tuned_model"}
    put("job", settings=settings)
    asked = {"outputModel": "early", "baseModel": BASE, "asyncPromotion": True}
    answer = await api.post(f"{job}/checkpoints/checkpoint-25:promote", json=asked)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"outputModel": "base"}, 409, "base"),
        ({"outputModel": "Bad_Id"}, 400, "outputModel"),
        ({"outputModel": "accounts/rival/models/m"}, 404, "not found"),
        ({"outputModel": "m", "baseModel": "other"}, 400, "the job tuned accounts/hearth/models/base"),
        ({}, 400, "outputModel"),
    ],
)
async def test_what_cannot_be_promoted_is_refused(api, job, kept, db, asked, status, words):
    answer = await api.post(f"{job}/checkpoints/sampler-10:promote", json=asked)
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text
    with db.session() as session:
        assert {row.id for row in session.scalars(select(ModelRow))} == {"base", "addon"}


async def test_nobody_else_sees_or_promotes_a_checkpoint(api, job, kept, other_key):
    rival = {"Authorization": f"Bearer {other_key}"}
    for method, path in (
        ("GET", "/checkpoints"),
        ("GET", "/checkpoints/sampler-10:getDownloadEndpoint"),
        ("POST", "/checkpoints/sampler-10:promote"),
        ("GET", ":getPlotEndpoint"),
    ):
        body = {"outputModel": "mine"} if method == "POST" else None
        assert (await api.request(method, job + path, headers=rival, json=body)).status_code == 404, path


def test_the_published_client_reads_the_same_paths():
    """It cannot be pointed at an app in this process; what it asks for is read off it."""
    asked = []

    class Recording(FireworksClient):
        def __init__(self):
            pass

        def _get(self, path, **_):
            asked.append(("GET", path.partition("?")[0]))
            return httpx.Response(200, json={"checkpoints": [{"name": NAME}], "nextPageToken": ""})

        def _post(self, path, json, **_):
            asked.append(("POST", path))
            assert json == {"output_model": MODEL, "base_model": BASE, "async_promotion": True}
            return httpx.Response(
                200, json={"model": {"name": MODEL, "state": "READY", "kind": "HF_PEFT_ADDON"}}
            )

    parent = "accounts/hearth/supervisedFineTuningJobs/job"
    NAME, MODEL = f"{parent}/checkpoints/sampler-10", "accounts/hearth/models/early"
    client = Recording()
    (found,) = client.list_training_job_checkpoints(parent)
    assert client.promote_training_job_checkpoint(found["name"], "early", BASE)["state"] == "READY"
    assert asked == [("GET", f"/v1/{parent}/checkpoints"), ("POST", f"/v1/{NAME}:promote")]


async def test_the_plot_is_named_once_it_is_there(api, job, put, object_store):
    row = put("job", state="RUNNING", attempt=1)
    assert (await api.get(f"{job}:getPlotEndpoint")).json() == {"svgSignedUrl": "", "pngSignedUrl": ""}
    for kind in ("svg", "png"):
        object_store.put_bytes(f"{row.prefix}plot.{kind}", kind.encode())
    urls = (await api.get(f"{job}:getPlotEndpoint")).json()
    async with httpx.AsyncClient() as anybody:
        assert [(await anybody.get(urls[f"{kind}SignedUrl"])).text for kind in ("svg", "png")] == [
            "svg",
            "png",
        ]


async def test_a_job_shows_its_evaluation_and_its_pace(api, job, put):
    scores = {"loss": 2.0, "perplexity": 7.4, "tokens": 30, "later": 1}
    after = {
        **scores,
        "exact_match": 0.5,
        "exact_matches": 1,
        "exact_match_rows": 2,
        "confusion": {"a": {"b": 1}},
    }
    put(
        "job",
        state="COMPLETED",
        result={"report": {"evaluation": {"before": scores, "after": after}}},
        progress={"phase": "UPLOADING", "step": 9, "max_steps": 9, "loss": 0.5, "peak_memory_bytes": 1024},
    )
    shown = (await api.get(job)).json()
    found = shown["evaluationResult"]
    assert (found["before"]["perplexity"], "exactMatch" in found["before"]) == (7.4, False)
    assert (found["after"]["exactMatch"], found["after"]["confusion"]) == (0.5, {"a": {"b": 1}})
    progress = shown["jobProgress"]
    assert (progress["phase"], progress["loss"], progress["peakMemoryBytes"]) == ("UPLOADING", 0.5, "1024")


async def test_a_job_keeps_the_hash_of_what_it_read(api, db):
    with db.session() as session:
        data = session.scalars(select(DatasetRow).where(DatasetRow.id == "chats")).one()
        data.files = {"b.jsonl": {"size": 1, "sha256": "b" * 64}, "a.jsonl": {"size": 1, "sha256": "a" * 64}}
    made = (await api.post(f"{JOBS}?supervisedFineTuningJobId=new", json=CHATS)).json()
    lines = f"{'a' * 64}  a.jsonl\n{'b' * 64}  b.jsonl\n"
    hashed = hashlib.sha256(lines.encode()).hexdigest()
    assert (
        made["lineage"]["datasetSha256"]
        == hashed
        == content_sha256({"a.jsonl": "a" * 64, "b.jsonl": "b" * 64})
    )
    assert made["lineage"]["baseModel"] == BASE
    with db.session() as session:
        session.scalars(select(DatasetRow).where(DatasetRow.id == "chats")).one().files = {}
    assert (await api.get(f"{JOBS}/new")).json()["lineage"] == made["lineage"]


async def test_a_classification_names_fields_that_every_row_has(api, db):
    body = {
        "dataset": "texts",
        "baseModel": BASE,
        "textClassification": {"text": "prompt", "label": "source"},
    }
    job = (await api.post(SEED_JOBS, json=body)).json()
    assert job["textClassification"] == body["textClassification"]
    assert not {"textCompletion", "conversation"} & job.keys()
    for change, words in (
        ({"text": "prompt", "label": "answer"}, "not every row of accounts/hearth/datasets/texts has"),
        ({"text": "{prompt}", "label": "source"}, "'{prompt}'"),
        ({"text": "prompt"}, "label"),
    ):
        answer = await api.post(SEED_JOBS, json={**body, "textClassification": change})
        assert (answer.status_code, words in answer.json()["message"]) == (400, True), answer.text
