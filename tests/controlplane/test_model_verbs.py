"""The verbs of models beside create, get, list, update and delete, and who wins when many call at once."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from controlplane.resources.tables import GarbageRow, ModelRow
from tests.controlplane.uploads import MODEL_FILES, MODELS, create_model, put_files, ready_model
from tests.gateway.serving import wait_until

pytestmark = pytest.mark.usefixtures("uploads_worker")

CONFIG = json.loads(MODEL_FILES["config.json"])
TOKENIZER = json.loads(MODEL_FILES["tokenizer_config.json"])


async def test_a_model_is_prepared_in_its_own_precision_and_in_no_other(api):
    path = f"{MODELS}/ember:prepare"
    assert (await api.post(path, json={"precision": "BF16"})).status_code == 404
    await create_model(api)
    too_early = await api.post(path, json={"precision": "BF16"})
    assert (too_early.status_code, too_early.json()["code"]) == (400, 9)
    await put_files(api, f"{MODELS}/ember", MODEL_FILES)
    await api.get(f"{MODELS}/ember:validateUpload")
    (own,) = (await api.get(f"{MODELS}/ember")).json()["supportedPrecisions"]
    prepared = await api.post(path, json={"precision": own})
    assert (prepared.status_code, prepared.json()) == (200, {})
    other = await api.post(path, json={"precision": "FP8"})
    assert (other.status_code, other.json()["code"]) == (400, 12)
    assert f"has {own}" in other.json()["message"]
    for body, word in (({}, "required"), ({"precision": "INT3"}, "FP8")):
        answer = await api.post(path, json=body)
        assert (answer.status_code, word in answer.json()["message"]) == (400, True)


async def test_what_this_platform_does_not_do_with_models_is_said_with_what_to_do_instead(api):
    await create_model(api)
    source = {"awsS3Source": {"s3Bucket": "b", "accessSecret": "hidden"}}
    for answer in (
        await api.post(f"{MODELS}/ember:import", json=source),
        await api.post(f"{MODELS}/ember/versions?versionId=v1", json={}),
        await api.get(f"{MODELS}/ember/versions:count"),
        await api.post(f"{MODELS}/ember/versions/v1:deploy", json={"deployment": "d"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, 12)
        assert "upload" in answer.json()["message"]


async def test_a_good_configuration_is_accepted_before_anything_is_uploaded(api):
    body = {"configJson": json.dumps(CONFIG), "tokenizerConfigJson": json.dumps(TOKENIZER)}
    answer = await api.post("/v1/validateModelConfig", json=body)
    assert (answer.status_code, answer.json()) == (200, {})


async def test_all_problems_of_a_configuration_are_told_at_once(api):
    config = {**CONFIG, "hidden_size": 0, "auto_map": {"AutoModel": "x.Y"}, "architectures": ["Unheard"]}
    body = {"configJson": json.dumps(config), "tokenizerConfigJson": '{"auto_map": {"a": "b"}}'}
    answer = await api.post("/v1/validateModelConfig", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    found = {found["field"] for found in answer.json()["details"][0]["fieldViolations"]}
    assert found == {
        "configJson.hidden_size",
        "configJson.auto_map",
        "configJson.architectures",
        "tokenizerConfigJson.auto_map",
    }


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": ' + "1" * 5000 + "}", "[" * 100_000]
)
async def test_a_configuration_that_is_no_json_object_is_refused(api, text):
    answer = await api.post("/v1/validateModelConfig", json={"configJson": text})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert "configJson" in answer.json()["message"]


async def test_what_is_not_checked_is_not_downloaded(api):
    await create_model(api)
    await put_files(api, f"{MODELS}/ember", MODEL_FILES)
    answer = await api.get(f"{MODELS}/ember:getDownloadEndpoint")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)


async def test_a_signed_url_that_still_works_changes_nothing_of_a_ready_model(api, db, object_store):
    await create_model(api)
    urls = await put_files(api, f"{MODELS}/ember", MODEL_FILES)
    await api.get(f"{MODELS}/ember:validateUpload")
    swapped = bytes(len(MODEL_FILES["model.safetensors"]))
    async with httpx.AsyncClient() as plain:
        assert (await plain.put(urls["model.safetensors"], content=swapped)).status_code == 200
        downloads = (await api.get(f"{MODELS}/ember:getDownloadEndpoint")).json()["filenameToSignedUrls"]
        assert (await plain.get(downloads["model.safetensors"])).content == MODEL_FILES["model.safetensors"]
    with db.session() as session:
        row = session.query(ModelRow).one()
        assert {garbage.prefix for garbage in session.query(GarbageRow)} == {f"{row.prefix}.incoming/"}
    assert object_store.head(f"{row.prefix}.incoming/model.safetensors") is not None


async def test_of_a_refused_upload_only_what_was_uploaded_stays(api, db, object_store):
    await create_model(api)
    await put_files(api, f"{MODELS}/ember", {**MODEL_FILES, "config.json": b"{"})
    assert (await api.get(f"{MODELS}/ember:validateUpload")).status_code == 400
    with db.session() as session:
        prefix = session.query(ModelRow).one().prefix

    def stored():
        return {found.key.removeprefix(prefix) for found in object_store.list(prefix)}

    uploads = {f".incoming/{name}" for name in MODEL_FILES}
    wait_until(lambda: stored() == uploads)


async def test_a_delete_of_another_version_is_refused(api):
    made = await api.post(MODELS, json={"modelId": "ember", "model": {"kind": "HF_BASE_MODEL"}})
    version = made.headers["etag"]
    await api.patch(f"{MODELS}/ember", json={"displayName": "Ember"})
    refused = await api.delete(f"{MODELS}/ember", headers={"If-Match": version})
    assert (refused.status_code, refused.json()["code"]) == (412, 10)
    version = (await api.get(f"{MODELS}/ember")).headers["etag"]
    assert (await api.delete(f"{MODELS}/ember", headers={"If-Match": version})).status_code == 200


async def test_of_many_that_create_the_same_model_one_wins_and_nothing_of_the_others_stays(api, db):
    def create(number):
        model = {"kind": "HF_BASE_MODEL", "displayName": f"number {number}"}
        return api.post(MODELS, json={"modelId": "ember", "model": model})

    answers = await asyncio.gather(*map(create, range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
    (won,) = (answer.json() for answer in answers if answer.status_code == 200)
    again = await create(99)
    assert (again.status_code, again.json()["code"]) == (409, 6)
    assert (await api.get(f"{MODELS}/ember")).json() == won
    with db.session() as session:
        assert session.query(ModelRow).count() == 1


async def test_of_many_changes_of_the_same_version_one_wins(api):
    await create_model(api)
    version = (await api.get(f"{MODELS}/ember")).headers["etag"]

    def change(number):
        headers = {"If-Match": version}
        return api.patch(f"{MODELS}/ember", json={"displayName": f"number {number}"}, headers=headers)

    answers = await asyncio.gather(*map(change, range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 11
    (won,) = (answer.json()["displayName"] for answer in answers if answer.status_code == 200)
    assert (await api.get(f"{MODELS}/ember")).json()["displayName"] == won


async def test_deletes_changes_and_checks_at_once_end_with_no_model_and_no_mistake_of_the_server(api, db):
    await create_model(api)
    await put_files(api, f"{MODELS}/ember", MODEL_FILES)
    calls = [
        *(api.get(f"{MODELS}/ember:validateUpload") for _ in range(3)),
        *(api.patch(f"{MODELS}/ember", json={"description": "x"}) for _ in range(3)),
        *(api.delete(f"{MODELS}/ember") for _ in range(4)),
        api.post(f"{MODELS}/ember:getUploadEndpoint", json={"filenameToSize": {"a": 1}}),
    ]
    answers = await asyncio.gather(*calls)
    deletes = [answer.status_code for answer in answers[6:10]]
    assert sorted(deletes) == [200, 404, 404, 404]
    assert all(answer.status_code in (200, 400, 404, 409) for answer in answers), [
        answer.text for answer in answers
    ]
    with db.session() as session:
        assert session.query(ModelRow).count() == 0


async def test_an_addon_and_the_delete_of_its_base_do_not_both_succeed(api, db):
    await ready_model(api)
    details = {"baseModel": "ember", "r": 8, "targetModules": ["q_proj"]}
    addon = {"modelId": "addon", "model": {"peftDetails": details}}
    made, deleted = await asyncio.gather(
        api.post(MODELS, json=addon), api.delete(f"{MODELS}/ember"), return_exceptions=False
    )
    assert {made.status_code, deleted.status_code} in ({200, 400}, {404, 200}, {409, 200})
    with db.session() as session:
        assert session.query(ModelRow).count() == (2 if made.status_code == 200 else 0)
