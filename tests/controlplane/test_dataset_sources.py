"""Datasets made from others: copies, the parts of a split, and what is downloaded of a lineage."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from controlplane.resources.tables import DatasetRow
from controlplane.storage import ObjectStore, StorageUnavailable
from tests.controlplane.uploads import DATASETS, chat_row, chat_rows, ready_dataset
from workers.context import WorkerContext
from workers.reconcile.datasets import reconcile_dataset

SHARDS = {"a.jsonl": chat_rows(300), "b.jsonl": b"\xef\xbb\xbf" + chat_rows(150).rstrip(b"\n")}


@pytest.fixture
def work(settings, db, object_store) -> Callable[[str], None]:
    """Has a worker visit a dataset once. No other does, so no request waits for one."""
    settings.verdict_wait_seconds = 0
    context = WorkerContext(settings, db, object_store, runtime=None)  # type: ignore[arg-type]

    def visit(dataset_id: str) -> None:
        with db.session() as session:
            uid = session.query(DatasetRow).filter_by(id=dataset_id).one().uid
        reconcile_dataset(context, uid)

    return visit


async def once_ready(api: httpx.AsyncClient, dataset_id: str) -> Any:
    """The dataset as soon as it is READY."""
    deadline = time.monotonic() + 60
    for _ in iter(lambda: time.monotonic() < deadline, False):
        dataset = (await api.get(f"{DATASETS}/{dataset_id}")).json()
        if dataset["state"] == "READY":
            return dataset
    pytest.fail(f"not READY: {dataset}")


async def content(api: httpx.AsyncClient, dataset_id: str) -> dict[str, bytes]:
    found = await api.get(f"{DATASETS}/{dataset_id}:getDownloadEndpoint")
    async with httpx.AsyncClient() as plain:
        urls = found.json()["filenameToSignedUrls"].items()
        return {name: (await plain.get(url)).content for name, url in urls}


async def copy(api: httpx.AsyncClient, **request: Any) -> httpx.Response:
    body = {"datasetId": "copy", "dataset": {}, "sourceDatasetId": "tickets", **request}
    return await api.post(DATASETS, json=body)


@pytest.mark.usefixtures("uploads_worker")
async def test_a_copy_has_the_rows_of_its_source_and_outlives_it(api):
    source = await ready_dataset(api, "tickets", SHARDS)
    made = await copy(api, dataset={"displayName": "Copy", "transformed": {"sourceDatasetId": "tickets"}})
    assert made.status_code == 200, made.text
    assert made.json()["state"] in ("UPLOADING", "READY")
    ready = await once_ready(api, "copy")
    assert ready["transformed"] == {
        "sourceDatasetId": "accounts/hearth/datasets/tickets",
        "filter": "",
        "originalFormat": "CHAT",
    }
    assert "userUploaded" not in ready
    for field in ("exampleCount", "format", "estimatedTokenCount", "averageTurnCount"):
        assert ready[field] == source[field]
    lineage = await api.get(f"{DATASETS}/copy:getDownloadEndpoint?downloadLineage=true")
    assert lineage.json()["filenameToSignedUrls"].keys() == {
        f"{made_of}/{name}" for made_of in ("copy", "tickets") for name in SHARDS
    }
    assert (await api.delete(f"{DATASETS}/tickets")).status_code == 200
    assert await content(api, "copy") == SHARDS
    lineage = await api.get(f"{DATASETS}/copy:getDownloadEndpoint?download_lineage=true")
    assert lineage.json()["filenameToSignedUrls"].keys() == {f"copy/{name}" for name in SHARDS}


async def test_copies_that_cannot_be_made_are_refused(api, uploads_worker):
    await ready_dataset(api, "tickets", {"a.jsonl": chat_rows(2)})
    await api.post(DATASETS, json={"datasetId": "empty", "dataset": {}})
    for request, code, words in (
        ({"sourceDatasetId": "nothing"}, 5, "not found"),
        ({"sourceDatasetId": "empty"}, 9, "not READY"),
        ({"filter": "a = 1"}, 3, "filter is not supported"),
        ({"dataset": {"userUploaded": {}}}, 3, "one place"),
        ({"dataset": {"format": "COMPLETION"}}, 3, "CHAT"),
        ({"dataset": {"transformed": {"sourceDatasetId": "empty"}}}, 3, "sourceDatasetId"),
        ({"datasetId": "tickets"}, 6, "already exists"),
    ):
        answer = await copy(api, **request)
        assert (answer.json()["code"], words in answer.json()["message"]) == (code, True), answer.text
    assert (await api.get(f"{DATASETS}/copy")).status_code == 404


async def test_while_a_copy_is_made_its_source_stays_and_nobody_uploads_to_it(api, work):
    await made_ready(api, work, "tickets", {"a.jsonl": chat_rows(2)})
    assert (await copy(api)).json()["status"][
        "message"
    ] == "being copied from accounts/hearth/datasets/tickets"
    refused = await api.delete(f"{DATASETS}/tickets")
    assert (refused.status_code, refused.json()["code"]) == (400, 9)
    assert "accounts/hearth/datasets/copy is being made" in refused.json()["message"]
    for answer in (
        await api.post(f"{DATASETS}/copy:getUploadEndpoint", json={"filenameToSize": {"a.jsonl": 1}}),
        await api.post(f"{DATASETS}/copy:upload", files={"file": ("a.jsonl", b"{}")}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, 9)
    work("copy")
    assert (await api.get(f"{DATASETS}/copy")).json()["state"] == "READY"


async def test_a_source_whose_file_was_changed_makes_no_copy(api, work, db, object_store):
    await made_ready(api, work, "tickets", {"a.jsonl": chat_rows(2)})
    with db.session() as session:
        prefix = session.query(DatasetRow).one().prefix
    object_store.put_bytes(prefix + "a.jsonl", chat_rows(2).replace(b"Hello", b"Howdy"))
    await copy(api)
    work("copy")
    made = (await api.get(f"{DATASETS}/copy")).json()
    assert (made["state"], made["status"]["code"]) == ("UPLOADING", "INVALID_ARGUMENT")
    assert "not what it was" in made["status"]["message"]
    assert (await api.delete(f"{DATASETS}/tickets")).status_code == 200


@pytest.mark.usefixtures("uploads_worker")
async def test_a_split_cuts_all_rows_into_parts_in_their_order(api):
    await ready_dataset(api, "tickets", SHARDS)
    before = (await api.get(f"{DATASETS}/tickets")).json()
    answer = await api.post(f"{DATASETS}/tickets:splitDataset", json={"chunkSize": 200})
    names = [f"accounts/hearth/datasets/tickets-chunk-{number}-of-3" for number in (1, 2, 3)]
    assert answer.json() == {"chunkDatasetNames": names, "chunksCreated": 3, "totalExamples": 450}
    rows: list[str] = []
    for name, count in zip(names, (200, 200, 50), strict=True):
        part = await once_ready(api, name.rpartition("/")[2])
        assert part["splitted"] == {"sourceDatasetId": "accounts/hearth/datasets/tickets"}
        assert (part["exampleCount"], part["format"]) == (str(count), "CHAT")
        (text,) = (await content(api, name.rpartition("/")[2])).values()
        rows += text.decode().splitlines()
    assert rows == [chat_row(f"Hi {number}") for number in (*range(300), *range(150))]
    assert (await api.get(f"{DATASETS}/tickets")).json() == before
    again = await api.post(f"{DATASETS}/tickets:splitDataset", json={"chunkSize": 200})
    assert (again.status_code, again.json()["code"]) == (409, 6)
    assert (await api.get(DATASETS)).json()["totalSize"] == 4


async def test_splits_that_cannot_be_made_are_refused(api, work, db):
    path = f"{DATASETS}/tickets:splitDataset"
    assert (await api.post(path, json={"chunkSize": 200})).status_code == 404
    await api.post(DATASETS, json={"datasetId": "tickets", "dataset": {}})
    assert (await api.post(path, json={"chunkSize": 200})).json()["code"] == 9
    await made_ready(api, work, "long", {"a.jsonl": chat_rows(2)})
    with db.session() as session:
        session.query(DatasetRow).filter_by(id="long").one().example_count = 2_000_000
    path = f"{DATASETS}/long:splitDataset"
    for body, words in (
        ({"chunkSize": 199}, "chunkSize"),
        ({}, "chunkSize"),
        ({"chunkSize": 200}, "use 2000 or more"),
        ({"chunkSize": 2_000_000, "parent": "accounts/rival"}, "parent"),
    ):
        answer = await api.post(path, json=body)
        assert (answer.status_code, words in answer.json()["message"]) == (400, True), answer.text
    assert (await api.get(DATASETS)).json()["totalSize"] == 2


async def test_a_split_that_breaks_off_goes_on_with_the_parts_that_are_missing(api, work, db, monkeypatch):
    await made_ready(api, work, "tickets", {"a.jsonl": chat_rows(500)})
    answer = await api.post(f"{DATASETS}/tickets:splitDataset", json={"chunkSize": 200})
    first, second, third = (name.rpartition("/")[2] for name in answer.json()["chunkDatasetNames"])
    put, written = ObjectStore.put_stream, []

    def breaks_off(store, key, source):
        written.append(key)
        if len(written) == 2:
            raise StorageUnavailable("gone")
        return put(store, key, source)

    monkeypatch.setattr(ObjectStore, "put_stream", breaks_off)
    work("tickets")
    waiting = (await api.get(f"{DATASETS}/tickets")).json()
    assert (waiting["state"], "waiting for the object store" in waiting["status"]["message"]) == (
        "READY",
        True,
    )
    refused = await api.delete(f"{DATASETS}/tickets")
    assert (refused.status_code, refused.json()["code"]) == (400, 9)
    assert (await api.delete(f"{DATASETS}/{third}")).status_code == 200
    with db.session() as session:
        session.query(DatasetRow).filter_by(id="tickets").one().next_reconcile_at = DatasetRow.create_time
    work("tickets")
    assert len(written) == 3
    assert (await api.get(f"{DATASETS}/tickets")).json()["status"] == {"code": "OK", "message": ""}
    for part in (first, second):
        work(part)
        assert (await api.get(f"{DATASETS}/{part}")).json()["exampleCount"] == "200"
    (text,) = (await content(api, second)).values()
    assert json.loads(text.splitlines()[0])["messages"][0]["content"] == "Hi 200"
    assert (await api.delete(f"{DATASETS}/tickets")).status_code == 200


async def test_of_splits_at_once_one_makes_all_parts_and_the_others_none(api, work, db):
    await made_ready(api, work, "tickets", {"a.jsonl": chat_rows(500)})
    path = f"{DATASETS}/tickets:splitDataset"
    answers = await asyncio.gather(*(api.post(path, json={"chunkSize": 200}) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    with db.session() as session:
        assert session.query(DatasetRow).filter(DatasetRow.source_uid.is_not(None)).count() == 3


async def test_a_copy_and_the_delete_of_its_source_do_not_both_succeed(api, work, db):
    await made_ready(api, work, "tickets", {"a.jsonl": chat_rows(2)})
    made, deleted = await asyncio.gather(copy(api), api.delete(f"{DATASETS}/tickets"))
    assert (made.status_code, deleted.status_code) in ((200, 400), (404, 200))
    if made.status_code == 200:
        work("copy")
        assert (await api.get(f"{DATASETS}/copy")).json()["state"] == "READY"


async def made_ready(api, work, dataset_id, files):
    """A READY dataset where no worker runs by itself."""
    await api.post(DATASETS, json={"datasetId": dataset_id, "dataset": {}})
    sizes = {name: len(text) for name, text in files.items()}
    urls = await api.post(f"{DATASETS}/{dataset_id}:getUploadEndpoint", json={"filenameToSize": sizes})
    async with httpx.AsyncClient() as plain:
        for name, url in urls.json()["filenameToSignedUrls"].items():
            assert (await plain.put(url, content=files[name])).status_code == 200
    await api.post(f"{DATASETS}/{dataset_id}:validateUpload", json={})
    work(dataset_id)
    assert (await api.get(f"{DATASETS}/{dataset_id}")).json()["state"] == "READY"
