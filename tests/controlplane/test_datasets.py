"""Datasets: upload, check, report, and everything that can be wrong with a file."""

import json
import threading

import httpx
import pytest

from controlplane.resources.datasets import endpoints, multipart
from controlplane.resources.tables import DatasetRow, GarbageRow
from tests.controlplane.roles import add_user

pytestmark = pytest.mark.usefixtures("uploads_worker")

DATASETS = "/v1/accounts/hearth/datasets"
GOOD = json.dumps(
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
)


async def create(api, dataset_id="tickets"):
    answer = await api.post(DATASETS, json={"datasetId": dataset_id, "dataset": {"userUploaded": {}}})
    assert answer.status_code == 200
    return answer.json()


async def upload(api, content, dataset_id="tickets", name="file"):
    return await api.post(f"{DATASETS}/{dataset_id}:upload", files={name: ("train.jsonl", content)})


async def test_an_uploaded_file_is_counted_and_ready_when_the_upload_answers(api):
    assert (await create(api))["state"] == "UPLOADING"
    answer = await upload(api, f"{GOOD}\n{GOOD}\n".encode())
    assert answer.json()["object"] == "file"
    assert answer.json()["filename"] == "train.jsonl"
    dataset = (await api.get(f"{DATASETS}/tickets")).json()
    assert dataset["state"] == "READY"
    assert dataset["format"] == "CHAT"
    assert dataset["exampleCount"] == "2"
    assert int(dataset["estimatedTokenCount"]) > 0
    assert dataset["averageTurnCount"] == 1.0


async def test_bad_rows_are_reported_by_line_with_the_reason(api):
    await create(api)
    rows = [GOOD, "{", json.dumps({"messages": [{"role": "bot", "content": "x"}]}), GOOD]
    answer = await upload(api, "\n".join(rows).encode())
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert answer.json()["message"].startswith("line 2")
    report = answer.json()["details"][0]
    assert report["badRowCount"] == 2
    assert [row["line"] for row in report["badRows"]] == [2, 3]
    assert "bot" in report["badRows"][1]["reason"]
    dataset = (await api.get(f"{DATASETS}/tickets")).json()
    assert dataset["state"] == "UPLOADING"
    assert dataset["status"]["code"] == "INVALID_ARGUMENT"


async def test_a_corrected_file_makes_a_refused_dataset_ready_and_leaves_one_object(api, object_store):
    await create(api)
    assert (await upload(api, b"{")).status_code == 400
    assert (await upload(api, GOOD.encode())).status_code == 200
    files = (await api.get(f"{DATASETS}/tickets:getDownloadEndpoint")).json()["filenameToSignedUrls"]
    assert len(files) == 1
    assert len(list(object_store.list("accounts/hearth/datasets/"))) == 1


async def test_a_ready_dataset_is_not_uploaded_to_again(api):
    await create(api)
    await upload(api, GOOD.encode())
    answer = await upload(api, GOOD.encode())
    assert (answer.status_code, answer.json()["code"]) == (400, 9)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"\xff\xfe\n", "UTF-8"), (b"[1]\n", "object"), (b'{"messages": []}\n', "messages")],
)
async def test_files_that_are_no_dataset_are_refused_with_the_reason(api, content, words):
    await create(api)
    answer = await upload(api, content)
    assert answer.status_code == 400
    assert words in answer.json()["message"]


async def test_an_upload_of_another_shape_is_refused_and_leaves_nothing(api, object_store):
    await create(api)
    wrong_name = await upload(api, GOOD.encode(), name="data")
    no_multipart = await api.post(f"{DATASETS}/tickets:upload", content=GOOD.encode())
    cut_off = await api.post(
        f"{DATASETS}/tickets:upload",
        content=b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"mess',
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    long_boundary = await api.post(
        f"{DATASETS}/tickets:upload",
        content=b"--",
        headers={"Content-Type": f"multipart/form-data; boundary={'b' * 300}"},
    )
    for answer in (wrong_name, no_multipart, cut_off, long_boundary):
        assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert list(object_store.list("accounts/hearth/datasets/")) == []


async def test_a_file_over_the_limit_is_refused_while_it_arrives(api, http, settings, object_store):
    await create(api)
    settings.dataset_upload_limit = 100_000
    answer = await upload(api, GOOD.encode() * 5_000)
    assert answer.status_code == 413
    assert "getUploadEndpoint" in answer.json()["message"]
    assert list(object_store.list("accounts/hearth/datasets/")) == []


async def test_a_large_dataset_goes_through_signed_urls(api):
    await create(api)
    content = f"{GOOD}\n".encode() * 3
    sizes = {"part-1.jsonl": len(content), "part-2.jsonl": str(len(content))}
    urls = (await api.post(f"{DATASETS}/tickets:getUploadEndpoint", json={"filenameToSize": sizes})).json()
    async with httpx.AsyncClient() as plain:
        for url in urls["filenameToSignedUrls"].values():
            headers = {"Content-Type": "application/octet-stream", "x-goog-content-length-range": "1,1"}
            assert (await plain.put(url, content=content, headers=headers)).status_code == 200
    assert (await api.post(f"{DATASETS}/tickets:validateUpload", json={})).json() == {}
    assert (await api.get(f"{DATASETS}/tickets")).json()["exampleCount"] == "6"
    downloads = (await api.get(f"{DATASETS}/tickets:getDownloadEndpoint")).json()["filenameToSignedUrls"]
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(downloads["part-1.jsonl"])).content == content


async def test_a_registered_file_that_never_came_is_named(api):
    await create(api)
    await api.post(f"{DATASETS}/tickets:getUploadEndpoint", json={"filenameToSize": {"a.jsonl": 5}})
    missing = await api.post(f"{DATASETS}/tickets:validateUpload", json={})
    assert "a.jsonl was registered but not uploaded" in missing.json()["message"]


async def test_a_signed_url_takes_a_file_of_the_registered_size_only(api):
    await create(api)
    urls = await api.post(f"{DATASETS}/tickets:getUploadEndpoint", json={"filenameToSize": {"a.jsonl": 5}})
    async with httpx.AsyncClient() as plain:
        refused = await plain.put(urls.json()["filenameToSignedUrls"]["a.jsonl"], content=GOOD.encode())
    assert refused.status_code == 403


@pytest.mark.parametrize("name", ["../a.jsonl", "a/b.jsonl", ".hidden", "a b", "a" * 201, "", "a\x00"])
async def test_file_names_with_tricks_are_refused(api, name):
    await create(api)
    answer = await api.post(f"{DATASETS}/tickets:getUploadEndpoint", json={"filenameToSize": {name: 5}})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_fields_that_cannot_be_honoured_are_refused_by_name(api):
    for dataset in (
        {"externalUrl": "gs://x/y.jsonl"},
        {"transformed": {"sourceDatasetId": "a"}},
        {"format": "X"},
    ):
        answer = await api.post(DATASETS, json={"datasetId": "d", "dataset": dataset})
        assert answer.status_code == 400
        assert next(iter(dataset)) in answer.json()["message"]


async def test_a_deleted_dataset_is_gone_and_its_objects_are_to_be_removed(api, db):
    await create(api)
    await upload(api, GOOD.encode())
    assert (await api.delete(f"{DATASETS}/tickets")).json() == {}
    assert (await api.get(f"{DATASETS}/tickets")).status_code == 404
    with db.session() as session:
        assert len(session.query(GarbageRow).all()) == 1


async def test_a_second_dataset_of_the_same_id_is_refused(api):
    await create(api)
    answer = await api.post(DATASETS, json={"datasetId": "tickets", "dataset": {}})
    assert (answer.status_code, answer.json()["code"]) == (409, 6)


@pytest.mark.parametrize("meanwhile", ["deleted", "created again", "being checked"])
async def test_an_upload_that_is_refused_at_its_end_leaves_no_object(
    api, db, object_store, monkeypatch, meanwhile
):
    await create(api)
    store_part = endpoints.store_file_part

    async def change_after_storing(*args):
        part = await store_part(*args)
        with db.session() as session:
            row = session.query(DatasetRow).one()
            if meanwhile == "being checked":
                row.reason = "CHECKING"
        if meanwhile != "being checked":
            await api.delete(f"{DATASETS}/tickets")
        if meanwhile == "created again":
            await create(api)
        return part

    monkeypatch.setattr(endpoints, "store_file_part", change_after_storing)
    answer = await upload(api, GOOD.encode())
    assert answer.status_code in (400, 404, 409)
    assert list(object_store.list("accounts/")) == []


async def test_a_header_without_end_and_a_body_without_file_are_bounded(api, settings):
    await create(api)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    long = b"--b\r\nContent-Disposition: " + b"x" * 20_000
    answer = await api.post(f"{DATASETS}/tickets:upload", content=long, headers=headers)
    assert (answer.status_code, "header" in answer.json()["message"]) == (400, True)


async def test_of_an_upload_to_somebody_else_s_dataset_nothing_is_read(api, db, monkeypatch):
    async def read(*_):
        raise AssertionError("the body was read")

    await create(api)
    monkeypatch.setattr(endpoints, "store_file_part", read)
    api.headers["Authorization"] = f"Bearer {add_user(db, 'contributor')}"
    answer = await upload(api, GOOD.encode())
    assert answer.status_code == 403, answer.text
    assert "its own resources" in answer.json()["message"]


async def test_uploads_over_the_limit_are_told_to_come_back(api, monkeypatch):
    await create(api)
    monkeypatch.setattr(multipart, "UPLOAD_PLACES", threading.Semaphore(0))
    answer = await upload(api, GOOD.encode())
    assert (answer.status_code, answer.json()["code"]) == (429, 8)
    assert answer.headers["retry-after"]


async def test_what_a_dataset_is_made_of_is_fixed_and_sending_it_back_is_no_change(api):
    made = await create(api)
    assert (await api.patch(f"{DATASETS}/tickets", json=made)).status_code == 200
    assert (await api.patch(f"{DATASETS}/tickets", json={"externalUrl": ""})).status_code == 200
    for change in ({"format": "CHAT"}, {"externalUrl": "http://x"}):
        answer = await api.patch(f"{DATASETS}/tickets", json=change)
        assert (answer.status_code, next(iter(change)) in answer.json()["message"]) == (400, True)


async def test_a_check_takes_no_settings(api):
    await api.post(DATASETS, json={"datasetId": "d", "dataset": {}})
    answer = await api.post(f"{DATASETS}/d:validateUpload", json={"force": True})
    assert (answer.status_code, answer.json()["message"]) == (400, 'unknown field "force"')
