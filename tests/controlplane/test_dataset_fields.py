"""Every field of a dataset, and who wins when many call at once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from controlplane.resources.tables import DatasetRow, GarbageRow
from tests.controlplane.uploads import DATASETS, chat_rows, put_files, ready_dataset

pytestmark = pytest.mark.usefixtures("uploads_worker")


async def create(api, **dataset):
    return await api.post(DATASETS, json={"datasetId": "tickets", "dataset": dataset})


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"format": "RL"}, "RL are not supported"),
        ({"format": "CSV"}, "COMPLETION"),
        ({"evaluationResult": {"evaluationJobId": "e"}}, "evaluationResult"),
        ({"evaluationResult": {"jobId": "e"}}, "unknown field"),
        ({"evalProtocol": {}}, "evalProtocol"),
        ({"splitted": {"sourceDatasetId": "a"}}, "splitted"),
        ({"transformed": {"sourceDatasetId": "a"}}, "sourceDatasetId"),
        ({"transformed": {"sourceDatasetId": "a", "filter": "x"}}, "filter"),
        ({"externalUrl": "gs://a/b.jsonl"}, "externalUrl"),
        ({"sourceJobName": "accounts/hearth/batchInferenceJobs/a"}, "sourceJobName"),
        ({"userUploaded": {}, "evalProtocol": {}}, "one place"),
        ({"userUploaded": {}, "transformed": {}}, "one place"),
        ({"exampleCount": "-1"}, "exampleCount"),
        ({"exampleCount": True}, "exampleCount"),
        ({"displayName": "x" * 64}, "displayName"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(api, dataset, words):
    answer = await create(api, **dataset)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"]
    assert (await api.get(f"{DATASETS}/tickets")).status_code == 404


async def test_the_example_count_is_the_clients_until_it_is_counted(api):
    made = (await create(api, exampleCount="7", accessPolicy={}, fireworksTraced=True)).json()
    assert (made["exampleCount"], made["userUploaded"], made["format"]) == ("7", {}, "FORMAT_UNSPECIFIED")
    assert made.keys().isdisjoint({"accessPolicy", "fireworksTraced", "transformed", "externalUri"})
    changed = await api.patch(f"{DATASETS}/tickets", json={"exampleCount": 8, "draftModelStates": []})
    assert changed.json()["exampleCount"] == "8"
    await put_files(api, f"{DATASETS}/tickets", {"a.jsonl": chat_rows(3)})
    assert (await api.post(f"{DATASETS}/tickets:validateUpload", json={})).status_code == 200
    assert (await api.get(f"{DATASETS}/tickets")).json()["exampleCount"] == "3"
    for change in ({"exampleCount": 4}, {"format": "COMPLETION"}, {"userUploaded": None}):
        answer = await api.patch(f"{DATASETS}/tickets", json=change)
        assert (answer.status_code, next(iter(change)) in answer.json()["message"]) == (400, True)
    named = await api.patch(f"{DATASETS}/tickets", json={"displayName": "Tickets"})
    assert named.json()["displayName"] == "Tickets"


async def test_a_ready_dataset_is_what_was_checked_whatever_is_uploaded_later(api, db):
    await create(api)
    urls = await put_files(api, f"{DATASETS}/tickets", {"a.jsonl": chat_rows(2)})
    assert (await api.get(f"{DATASETS}/tickets:getDownloadEndpoint")).status_code == 400
    await api.post(f"{DATASETS}/tickets:validateUpload", json={})
    async with httpx.AsyncClient() as plain:
        assert (await plain.put(urls["a.jsonl"], content=bytes(len(chat_rows(2))))).status_code == 200
        found = (await api.get(f"{DATASETS}/tickets:getDownloadEndpoint")).json()["filenameToSignedUrls"]
        assert (await plain.get(found["a.jsonl"])).content == chat_rows(2)
    with db.session() as session:
        assert session.query(GarbageRow).one().prefix.endswith("/.incoming/")


async def test_a_delete_of_another_version_is_refused(api):
    version = (await create(api)).headers["etag"]
    await api.patch(f"{DATASETS}/tickets", json={"displayName": "Tickets"})
    refused = await api.delete(f"{DATASETS}/tickets", headers={"If-Match": version})
    assert (refused.status_code, refused.json()["code"]) == (412, 10)
    assert (await api.delete(f"{DATASETS}/tickets", headers={"If-Match": "*"})).status_code == 200


async def test_of_many_that_create_the_same_dataset_one_wins(api, db):
    answers = await asyncio.gather(*(create(api, displayName=f"number {n}") for n in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
    (won,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert (await create(api, displayName="again")).json()["code"] == 6
    assert (await api.get(f"{DATASETS}/tickets")).json() == won


async def test_uploads_deletes_and_checks_at_once_end_without_a_mistake_of_the_server(api, db):
    await create(api)
    await put_files(api, f"{DATASETS}/tickets", {"a.jsonl": chat_rows(2)})
    file = {"file": ("b.jsonl", chat_rows(4))}
    calls = [
        *(api.delete(f"{DATASETS}/tickets") for _ in range(3)),
        *(api.post(f"{DATASETS}/tickets:validateUpload", json={}) for _ in range(3)),
        *(api.post(f"{DATASETS}/tickets:upload", files=file) for _ in range(3)),
        api.patch(f"{DATASETS}/tickets", json={"displayName": "x"}),
    ]
    answers = await asyncio.gather(*calls)
    assert sorted(answer.status_code for answer in answers[:3]) == [200, 404, 404]
    assert all(answer.status_code in (200, 400, 404, 409) for answer in answers), [
        answer.text for answer in answers
    ]
    with db.session() as session:
        assert session.query(DatasetRow).count() == 0


async def test_of_several_uploads_at_once_one_becomes_the_dataset(api, object_store):
    await create(api)

    def upload(rows):
        return api.post(f"{DATASETS}/tickets:upload", files={"file": ("a.jsonl", chat_rows(rows))})

    answers = await asyncio.gather(*map(upload, range(1, 6)))
    (won,) = (rows for rows, answer in enumerate(answers, start=1) if answer.status_code == 200)
    refused = [answer.json()["code"] for answer in answers if answer.status_code != 200]
    assert refused == [9] * 4
    assert (await api.get(f"{DATASETS}/tickets")).json()["exampleCount"] == str(won)
    assert len(list(object_store.list("accounts/hearth/datasets/"))) == 1


async def test_another_account_finds_nothing_of_a_dataset(api, http, other_key):
    await ready_dataset(api, "tickets", {"a.jsonl": chat_rows(2)})
    http.headers["Authorization"] = f"Bearer {other_key}"
    copy = {"datasetId": "mine", "dataset": {}, "sourceDatasetId": "accounts/hearth/datasets/tickets"}
    for answer in (
        await http.post("/v1/accounts/rival/datasets", json=copy),
        await http.post(f"{DATASETS}/tickets:splitDataset", json={"chunkSize": 200}),
        await http.get(f"{DATASETS}/tickets:getDownloadEndpoint?downloadLineage=true"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, 5)
