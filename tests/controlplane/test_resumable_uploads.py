"""Uploads in parts: what arrived stays, what is missing is told, and the parts become the file."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from controlplane.db import now
from controlplane.part_uploads import MOST_PARTS, PartPlan, StoredPart
from controlplane.resources import resumable
from controlplane.resources.tables import DatasetRow, GarbageRow, ModelRow
from tests.controlplane.uploads import (
    DATASETS,
    MODEL_FILES,
    MODELS,
    chat_row,
    create_model,
    put_files,
    ready_model,
)
from workers.context import WorkerContext
from workers.reconcile.sweep import KEPT_WATCH, abort_abandoned_uploads, collect_garbage

pytestmark = pytest.mark.usefixtures("uploads_worker")

MIB = 1024 * 1024
PART = 5 * MIB
EMBER = f"{MODELS}/ember"
TICKETS = f"{DATASETS}/tickets"
ROWS = "".join(f"{chat_row(str(number) * 1200)}\n" for number in range(1000, 3400)).encode()
"""Two parts and a rest."""
FILE = "rows.jsonl"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "USUAL_PART_BYTES", PART)


@pytest.fixture
async def tickets(api):
    """A dataset that waits for its files."""
    made = await api.post(DATASETS, json={"datasetId": "tickets", "dataset": {"userUploaded": {}}})
    assert made.status_code == 200, made.text
    return api


async def ask(api, path=TICKETS, sizes=None, **more):
    body = {"filenameToSize": sizes or {FILE: len(ROWS)}, "enableResumableUpload": True, **more}
    return await api.post(f"{path}:getUploadEndpoint", json=body)


async def parts(api, name=FILE, **more):
    answer = await ask(api, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["filenameToParts"][name]


async def put(url, content, headers=None):
    async with httpx.AsyncClient(timeout=60) as plain:
        return await plain.put(url, content=content, headers=headers)


def cut(number, content=ROWS):
    return content[(number - 1) * PART : number * PART]


async def send(found, content=ROWS):
    for number, url in found["partNumberToSignedUrl"].items():
        assert (await put(url, cut(int(number), content))).status_code == 200


def unfinished(object_store):
    return [upload.upload_id for upload in object_store.parts.unfinished()]


async def test_what_arrived_is_told_and_only_the_rest_is_asked_for(tickets):
    first = await parts(tickets)
    assert (first["partSize"], first["partCount"], first["partNumberToEtag"]) == (str(PART), 3, {})
    assert set(first["partNumberToSignedUrl"]) == {"1", "2", "3"}
    assert (await put(first["partNumberToSignedUrl"]["2"], cut(2))).status_code == 200
    again = await parts(tickets)
    assert again["uploadId"] == first["uploadId"]
    assert again["partNumberToEtag"] == {"2": hashlib.md5(cut(2)).hexdigest()}
    assert set(again["partNumberToSignedUrl"]) == {"1", "3"}
    later = await parts(tickets, filenameToFirstPart={FILE: 3})
    assert (set(later["partNumberToEtag"]), set(later["partNumberToSignedUrl"])) == (set(), {"3"})


async def test_a_part_that_arrived_is_sent_again_when_it_is_asked_for(tickets):
    first = await parts(tickets)
    wrong = first["partNumberToSignedUrl"]["2"]
    assert (await put(wrong, bytes(PART))).status_code == 200
    again = await parts(tickets, filenameToFirstPart={FILE: 2})
    assert set(again["partNumberToSignedUrl"]) == {"2", "3"}
    await send(
        {"partNumberToSignedUrl": {**first["partNumberToSignedUrl"], **again["partNumberToSignedUrl"]}}
    )
    meant = {FILE: {"2": hashlib.md5(cut(2)).hexdigest()}}
    told = await parts(tickets, filenameToPartEtags=meant)
    assert told["partNumberToEtag"]["2"] == meant[FILE]["2"]
    assert (await parts(tickets))["partNumberToEtag"]["2"] == meant[FILE]["2"]
    beyond = await parts(tickets, filenameToFirstPart={FILE: 9})
    assert (beyond["partNumberToEtag"], beyond["partNumberToSignedUrl"]) == ({}, {})
    assert (await tickets.post(f"{TICKETS}:validateUpload", json={})).status_code == 200
    checked = (await tickets.get(f"{TICKETS}:getDownloadEndpoint")).json()
    assert checked["filenameToSha256"] == {FILE: hashlib.sha256(ROWS).hexdigest()}


async def test_the_parts_become_the_file_when_it_is_checked(tickets, object_store):
    await send(await parts(tickets))
    told = await parts(tickets, filenameToSha256={FILE: hashlib.sha256(ROWS).hexdigest().upper()})
    assert told["partNumberToSignedUrl"] == {}
    checked = await tickets.post(f"{TICKETS}:validateUpload", json={})
    assert (checked.status_code, checked.json()) == (200, {})
    assert (await tickets.get(TICKETS)).json()["exampleCount"] == "2400"
    answer = (await tickets.get(f"{TICKETS}:getDownloadEndpoint")).json()
    assert answer["filenameToSize"] == {FILE: str(len(ROWS))}
    assert answer["filenameToSha256"] == {FILE: hashlib.sha256(ROWS).hexdigest()}
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(answer["filenameToSignedUrls"][FILE])).content == ROWS
    assert unfinished(object_store) == []


async def test_a_part_that_is_missing_is_told_and_can_still_be_sent(tickets):
    found = await parts(tickets)
    third = found["partNumberToSignedUrl"].pop("3")
    await send(found)
    refused = await tickets.post(f"{TICKETS}:validateUpload", json={})
    assert refused.status_code == 400
    assert refused.json()["code"] == 9  # FAILED_PRECONDITION: whoever uploads can go on
    assert "1 of its 3 parts did not arrive" in refused.json()["message"]
    assert set((await parts(tickets))["partNumberToSignedUrl"]) == {"3"}
    assert (await put(third, cut(3))).status_code == 200
    assert (await tickets.post(f"{TICKETS}:validateUpload", json={})).status_code == 200


async def test_a_file_that_arrived_as_another_one_is_named_and_sent_anew(tickets):
    await send(await parts(tickets))
    announced = {FILE: hashlib.sha256(b"something else").hexdigest()}
    await parts(tickets, filenameToSha256=announced)
    refused = await tickets.post(f"{TICKETS}:validateUpload", json={})
    assert refused.status_code == 400
    assert FILE in refused.json()["message"]
    assert hashlib.sha256(ROWS).hexdigest() in refused.json()["message"]
    anew = await parts(tickets, filenameToSha256={FILE: hashlib.sha256(ROWS).hexdigest()})
    assert set(anew["partNumberToSignedUrl"]) == {"1", "2", "3"}
    await send(anew)
    assert (await tickets.post(f"{TICKETS}:validateUpload", json={})).status_code == 200


async def test_the_checksum_of_a_file_in_one_put_counts_too(api):
    await create_model(api)
    sizes = {name: len(content) for name, content in MODEL_FILES.items()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in MODEL_FILES.items()}
    body = {"filenameToSize": sizes, "filenameToSha256": {**sums, "tokenizer.json": "0" * 64}}
    answer = await api.post(f"{EMBER}:getUploadEndpoint", json=body)
    for name, url in answer.json()["filenameToSignedUrls"].items():
        assert (await put(url, MODEL_FILES[name])).status_code == 200
    refused = await api.get(f"{EMBER}:validateUpload")
    assert refused.status_code == 400
    violation = refused.json()["details"][0]["fieldViolations"][0]
    assert violation["field"] == "tokenizer.json"
    assert "0" * 64 in violation["description"]
    await api.post(f"{EMBER}:getUploadEndpoint", json={**body, "filenameToSha256": sums})
    assert (await api.get(f"{EMBER}:validateUpload")).status_code == 200


async def test_what_is_wrong_with_a_file_that_was_not_meant_is_not_said_of_the_one_that_was(api):
    """A slower upload of another model wrote its config last; the two do not fit each other."""
    await create_model(api)
    sizes = {name: len(content) for name, content in MODEL_FILES.items()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in MODEL_FILES.items()}
    body = {"filenameToSize": sizes, "filenameToSha256": sums}
    answer = await api.post(f"{EMBER}:getUploadEndpoint", json=body)
    urls = answer.json()["filenameToSignedUrls"]
    config = MODEL_FILES["config.json"]
    late = config.replace(b'"vocab_size": 512', b'"vocab_size": 640')
    for name, url in urls.items():
        assert (await put(url, MODEL_FILES[name] if name != "config.json" else late)).status_code == 200
    refused = await api.get(f"{EMBER}:validateUpload")
    assert refused.status_code == 400
    assert refused.json()["code"] == 9
    [violation] = refused.json()["details"][0]["fieldViolations"]
    assert violation["field"] == "config.json"
    assert "upload it again" in violation["description"]
    assert (await put(urls["config.json"], config)).status_code == 200
    assert (await api.get(f"{EMBER}:validateUpload")).status_code == 200


async def test_a_corrupted_part_is_refused_by_the_store(tickets):
    found = await parts(tickets)
    digest = base64.b64encode(hashlib.md5(cut(1)).digest()).decode()
    damaged = b"x" + cut(1)[1:]
    answer = await put(found["partNumberToSignedUrl"]["1"], damaged, {"Content-MD5": digest})
    assert answer.status_code == 400
    assert "1" in (await parts(tickets))["partNumberToSignedUrl"]


async def test_a_part_of_another_size_is_refused_by_the_store(tickets):
    found = await parts(tickets)
    assert (await put(found["partNumberToSignedUrl"]["1"], cut(1)[:-1])).status_code == 403


async def test_small_files_keep_their_one_put_beside_large_ones(api, monkeypatch):
    large = "model.safetensors"
    threshold = sorted(len(content) for content in MODEL_FILES.values())[-2]
    monkeypatch.setattr(resumable, "USUAL_PART_BYTES", threshold)
    await create_model(api)
    sizes = {name: len(content) for name, content in MODEL_FILES.items()}
    answer = (await ask(api, EMBER, sizes)).json()
    assert set(answer["filenameToParts"]) == {large}
    assert set(answer["filenameToSignedUrls"]) == set(MODEL_FILES) - {large}
    assert set(answer["filenameToUnsignedUris"]) == set(MODEL_FILES)


async def test_an_answer_holds_so_many_addresses_and_the_next_goes_on(tickets, monkeypatch):
    monkeypatch.setattr(resumable, "URLS_AN_ANSWER", 4)
    sizes = {"a.jsonl": 3 * PART, "b.jsonl": 3 * PART, "c.jsonl": 3 * PART}
    found = (await ask(tickets, sizes=sizes)).json()["filenameToParts"]
    assert {name: list(p["partNumberToSignedUrl"]) for name, p in found.items()} == {
        "a.jsonl": ["1", "2", "3"],
        "b.jsonl": ["1"],
    }
    named = (await ask(tickets, sizes=sizes, filenameToFirstPart={"b.jsonl": 2, "c.jsonl": 3})).json()
    assert {name: list(p["partNumberToSignedUrl"]) for name, p in named["filenameToParts"].items()} == {
        "b.jsonl": ["2", "3"],
        "c.jsonl": ["3"],
    }


async def test_many_callers_at_once_go_on_with_one_upload(tickets, object_store):
    found = await asyncio.gather(*(parts(tickets) for _ in range(6)))
    assert len({one["uploadId"] for one in found}) == 1
    assert unfinished(object_store) == [found[0]["uploadId"]]


async def test_another_size_or_another_set_of_files_ends_the_upload(tickets, object_store):
    first = await parts(tickets)
    await send(first)
    other = await parts(tickets, sizes={FILE: len(ROWS) - 1})
    assert other["uploadId"] != first["uploadId"]
    assert other["partNumberToEtag"] == {}
    assert unfinished(object_store) == [other["uploadId"]]
    await ask(tickets, sizes={"b.jsonl": 5})
    assert unfinished(object_store) == []


async def test_a_plain_call_still_gives_one_address_a_file(tickets, object_store):
    await parts(tickets)
    sizes = {"filenameToSize": {FILE: len(ROWS)}}
    answer = (await tickets.post(f"{TICKETS}:getUploadEndpoint", json=sizes)).json()
    assert set(answer["filenameToSignedUrls"]) == {FILE}
    assert answer["filenameToParts"] == {}
    assert unfinished(object_store) == []
    assert (await put(answer["filenameToSignedUrls"][FILE], ROWS)).status_code == 200
    assert (await tickets.post(f"{TICKETS}:validateUpload", json={})).status_code == 200


async def test_an_address_of_a_part_changes_nothing_of_what_is_ready(tickets):
    found = await parts(tickets)
    await send(found)
    await tickets.post(f"{TICKETS}:validateUpload", json={})
    late = await put(found["partNumberToSignedUrl"]["1"], bytes(PART))
    assert late.status_code == 404
    refused = await ask(tickets)
    assert (refused.status_code, refused.json()["code"]) == (400, 9)
    urls = (await tickets.get(f"{TICKETS}:getDownloadEndpoint")).json()["filenameToSignedUrls"]
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(urls[FILE])).content == ROWS


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"filenameToSha256": {"other": "0" * 64}}, "filenameToSha256"),
        ({"filenameToSha256": {FILE: "xyz"}}, "filenameToSha256"),
        ({"filenameToFirstPart": {"other": 1}}, "filenameToFirstPart"),
        ({"filenameToFirstPart": {FILE: 0}}, "filenameToFirstPart"),
        ({"filenameToPartEtags": {"other": {"1": "e"}}}, "filenameToPartEtags"),
        ({"filenameToPartEtags": {FILE: {"first": "e"}}}, "filenameToPartEtags"),
        ({"filenameToFirstPart": {FILE: MOST_PARTS + 1}}, "filenameToFirstPart"),
    ],
)
async def test_what_names_no_file_or_no_part_is_refused_by_its_field(tickets, more, field):
    answer = await ask(tickets, **more)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert field in answer.json()["message"]


async def test_another_account_is_told_nothing_of_an_upload(tickets, http, other_key):
    await parts(tickets)
    http.headers["Authorization"] = f"Bearer {other_key}"
    answer = await ask(http)
    assert (answer.status_code, answer.json()["code"]) == (404, 5)


async def test_an_upload_that_was_swept_away_begins_anew(tickets, object_store, db):
    first = await parts(tickets)
    await send(first)
    with db.session() as session:
        key = f"{session.scalars(select(DatasetRow)).one().prefix}.incoming/{FILE}"
    object_store.parts.abort(key, first["uploadId"])
    object_store.parts.abort(key, first["uploadId"])
    anew = await parts(tickets)
    assert anew["uploadId"] != first["uploadId"]
    assert set(anew["partNumberToSignedUrl"]) == {"1", "2", "3"}


async def test_the_parts_of_a_deleted_resource_go_with_it(tickets, settings, db, object_store):
    await send(await parts(tickets))
    await tickets.delete(TICKETS)
    context = WorkerContext(settings, db, object_store, runtime=None)
    collect_garbage(context)
    assert unfinished(object_store) == []
    with db.session() as session:
        garbage = session.scalars(select(GarbageRow)).one()
        assert garbage.due_time > garbage.create_time + KEPT_WATCH - timedelta(seconds=1)


async def test_what_nobody_finishes_is_kept_for_days_and_then_freed(
    tickets, settings, db, object_store, monkeypatch
):
    await parts(tickets)
    context = WorkerContext(settings, db, object_store, runtime=None)
    abort_abandoned_uploads(context)
    assert len(unfinished(object_store)) == 1
    later = now() + timedelta(days=settings.upload_days, minutes=1)
    monkeypatch.setattr("workers.reconcile.sweep.now", lambda: later)
    abort_abandoned_uploads(context)
    assert unfinished(object_store) == []


async def test_a_model_that_is_ready_has_checksums_to_download_by(api, db):
    await ready_model(api)
    answer = (await api.get(f"{EMBER}:getDownloadEndpoint")).json()
    assert answer["filenameToSha256"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in MODEL_FILES.items()
    }
    with db.session() as session:
        assert not any("upload" in file for file in session.scalars(select(ModelRow)).one().files.values())


async def test_a_refused_upload_in_one_put_can_be_mended_in_parts(api, monkeypatch):
    monkeypatch.setattr(resumable, "USUAL_PART_BYTES", 1000)
    await create_model(api)
    await put_files(api, EMBER, {**MODEL_FILES, "config.json": b"{" * 2000})
    assert (await api.get(f"{EMBER}:validateUpload")).status_code == 400
    sizes = {name: len(content) for name, content in MODEL_FILES.items()}
    answer = (await ask(api, EMBER, sizes)).json()
    assert all(found["partNumberToEtag"] == {} for found in answer["filenameToParts"].values())
    missing = await api.get(f"{EMBER}:validateUpload")
    assert "did not arrive" in missing.json()["message"]


@pytest.mark.parametrize(
    ("size", "part_size", "count"),
    [(1, 8 * MIB, 1), (8 * MIB, 8 * MIB, 1), (8 * MIB + 1, 8 * MIB, 2), (2**41, 210 * MIB, 9987)],
)
def test_a_file_is_cut_into_parts_that_the_store_takes(size, part_size, count):
    plan = PartPlan.of(size)
    assert (plan.part_size, plan.count) == (part_size, count)
    assert plan.count <= MOST_PARTS
    assert (plan.count - 1) * plan.part_size + plan.bytes_of(plan.count) == size


def test_a_part_that_arrived_short_is_missing():
    plan = PartPlan(25, 10)
    stored = {1: StoredPart(10, "a", now()), 2: StoredPart(9, "b", now()), 3: StoredPart(5, "c", now())}
    assert list(plan.missing(stored)) == [2]
    assert list(plan.missing(stored, 3)) == []
