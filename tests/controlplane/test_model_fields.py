"""Every field of a model: honoured, read from the files, or refused by name."""

from __future__ import annotations

import json

import pytest

from controlplane.resources.models.schemas import OF_OLDER_CLIENTS, Model
from controlplane.resources.tables import DeploymentRow, ModelRow
from tests.controlplane.uploads import MODEL_FILES, MODELS, create_model, put_files, ready_model

pytestmark = pytest.mark.usefixtures("uploads_worker")


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        ({"kind": "PEFT"}, "kind", "HF_PEFT_ADDON"),
        ({"snapshotType": "NONE"}, "snapshotType", "INCREMENTAL_SNAPSHOT"),
        ({"baseModelDetails": {"checkpointFormat": "GGUF"}}, "checkpointFormat", "HUGGINGFACE"),
    ],
)
async def test_a_value_that_an_enum_does_not_have_is_answered_with_those_it_has(api, model, field, value):
    answer = await api.post(MODELS, json={"modelId": "m", "model": model})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert field in answer.json()["message"]
    assert value in answer.json()["message"]


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ({"teftDetails": {}}, "teftDetails"),
        ({"defaultDraftTokenCount": 3}, "defaultDraftTokenCount"),
        ({"deprecationDate": {"year": 2030, "month": 1, "day": 31}}, "deprecationDate"),
        ({"deprecationDate": {"year": 2030, "month": 13}}, "deprecationDate.month"),
        ({"deprecationDate": "2030-01-31"}, "deprecationDate"),
        ({"trainingContextLength": 8}, "trainingContextLength"),
        ({"snapshotType": "INCREMENTAL_SNAPSHOT"}, "snapshotType"),
        ({"baseModelDetails": {"checkpointFormat": "UNINITIALIZED"}}, "checkpointFormat"),
        ({"baseModelDetails": {"worldSize": 2}}, "worldSize"),
        ({"baseModelDetails": {"supportsMtp": True}}, "supportsMtp"),
        ({"peftDetails": {"baseModel": "b", "r": 65}}, "peftDetails.r"),
        ({"description": "x" * 1000}, "description"),
        ({"contextLength": -1}, "contextLength"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(api, model, field):
    answer = await api.post(MODELS, json={"modelId": "m", "model": model})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert field in answer.json()["message"]
    assert (await api.get(f"{MODELS}/m")).status_code == 404


async def test_a_cluster_is_refused_by_name(api):
    body = {"modelId": "m", "model": {"kind": "HF_BASE_MODEL"}, "cluster": "accounts/hearth/clusters/c"}
    answer = await api.post(MODELS, json=body)
    assert (answer.status_code, "cluster" in answer.json()["message"]) == (400, True)


async def test_fields_of_older_clients_are_taken_and_not_returned(api):
    older = {"tokensPerSecond": 3, "skuInfos": [], "annotations": {"a": "b"}, "gcs_uri": "gs://x"}
    made = await create_model(api, **older)
    changed = await api.patch(f"{MODELS}/ember", json={**older, "imageTag": "x", "displayName": "Ember"})
    assert changed.status_code == 200, changed.text
    for message in (made, changed.json()):
        assert message.keys().isdisjoint(
            {"tokensPerSecond", "skuInfos", "annotations", "gcsUri", "createdBy"}
        )


def test_the_fields_of_older_clients_are_those_that_are_not_returned():
    assert {name for name, field in Model.model_fields.items() if field.exclude} == set(OF_OLDER_CLIENTS)


async def test_what_the_server_sets_is_ignored_and_what_is_fixed_is_refused_on_a_change(api):
    model = await ready_model(api)
    ignored = {
        "name": "accounts/x/models/y",
        "state": "UPLOADING",
        "importedFrom": "x",
        "calibrated": True,
        "tunable": False,
        "supportsServerless": True,
        "supportedPrecisions": ["FP8"],
        "baseModelDetails": {"parameterCount": 7},
        "deployedModelRefs": [{"name": "x"}],
    }
    answer = await api.patch(f"{MODELS}/ember", json=ignored)
    assert answer.status_code == 200, answer.text
    assert {**answer.json(), "updateTime": ""} == {**model, "updateTime": ""}
    for change in (
        {"kind": "HF_PEFT_ADDON"},
        {"peftDetails": {"baseModel": "x"}},
        {"conversationConfig": None},
        {"supportsTools": not model["supportsTools"]},
        {"supportsLora": False},
        {"useHfApplyChatTemplate": False},
        {"contextLength": 10_000_000},
    ):
        answer = await api.patch(f"{MODELS}/ember", json=change)
        assert (answer.status_code, answer.json()["code"]) == (400, 3), change
        assert next(iter(change)) in answer.json()["message"]


async def test_a_checked_base_model_tells_what_is_true_of_it(api):
    settings = {"temperature": 0.6, "top_k": 20, "max_new_tokens": 100, "do_sample": True}
    await create_model(api)
    files = {**MODEL_FILES, "generation_config.json": json.dumps(settings).encode()}
    await put_files(api, f"{MODELS}/ember", files)
    assert (await api.get(f"{MODELS}/ember:validateUpload")).status_code == 200
    model = (await api.get(f"{MODELS}/ember")).json()
    details = model["baseModelDetails"]
    assert model["defaultSamplingParams"] == {"temperature": 0.6, "top_k": 20, "max_tokens": 100}
    assert model["supportedPrecisions"] == [details["defaultPrecision"]]
    assert model["supportedPrecisionsWithCalibration"] == []
    assert (model["calibrated"], model["supportsServerless"], model["rlTunable"]) == (False, False, False)
    assert (model["supervisedLoraTunable"], model["supervisedFullParameterTunable"]) == (True, False)
    assert (model["supportsLora"], model["useHfApplyChatTemplate"]) == (True, True)
    assert details["checkpointFormat"] == "HUGGINGFACE"
    assert details["huggingfaceFiles"] == sorted(files)
    assert details["worldSize"] == 1


async def test_sampling_settings_that_no_request_could_have_are_refused(api):
    await create_model(api)
    files = {**MODEL_FILES, "generation_config.json": b'{"temperature": -1, "top_k": 1.5}'}
    await put_files(api, f"{MODELS}/ember", files)
    answer = await api.get(f"{MODELS}/ember:validateUpload")
    assert answer.status_code == 400
    assert "generation_config.json: temperature: is -1" in answer.json()["message"]


async def test_what_was_said_of_the_files_is_shown_until_they_are_read_and_warned_of_when_wrong(api):
    said = {"parameterCount": "7", "moe": True, "modelType": "llama"}
    made = await create_model(api, baseModelDetails={**said, "worldSize": 1}, supportsTools=True)
    assert {name: made["baseModelDetails"][name] for name in said} == said
    await put_files(api, f"{MODELS}/ember", MODEL_FILES)
    warnings = (await api.get(f"{MODELS}/ember:validateUpload")).json()["warnings"]
    model = (await api.get(f"{MODELS}/ember")).json()
    assert model["baseModelDetails"]["moe"] is False
    assert any(text.startswith("parameterCount was given as 7, and by the files it is") for text in warnings)
    assert any(text.startswith("moe was given as true, and by the files it is false") for text in warnings)
    assert any(text.startswith("supportsTools") for text in warnings) == (not model["supportsTools"])


async def test_a_public_model_is_not_taken_from_the_accounts_that_stand_on_it(api, http, db, other_key):
    await ready_model(api, public=True)
    mine = http.headers["Authorization"]
    http.headers["Authorization"] = f"Bearer {other_key}"
    details = {"baseModel": "accounts/hearth/models/ember", "r": 8, "targetModules": ["q_proj"]}
    addon = {"modelId": "addon", "model": {"kind": "HF_PEFT_ADDON", "peftDetails": details}}
    assert (await http.post("/v1/accounts/rival/models", json=addon)).status_code == 200
    http.headers["Authorization"] = mine
    refused = await api.patch(f"{MODELS}/ember", json={"public": False})
    assert (refused.status_code, refused.json()["code"]) == (400, 9)
    assert "other accounts" in refused.json()["message"]
    assert "rival" not in refused.text
    assert (await api.get(f"{MODELS}/ember")).json()["public"] is True
    with db.session() as session:
        session.delete(session.query(ModelRow).filter_by(id="addon").one())
        base = session.query(ModelRow).filter_by(id="ember").one()
        session.add(DeploymentRow(account_id="rival", id="theirs", base_model_uid=base.uid, state="DELETED"))
    assert (await api.patch(f"{MODELS}/ember", json={"public": False})).json()["public"] is False
    http.headers["Authorization"] = f"Bearer {other_key}"
    assert (await http.post("/v1/accounts/rival/models", json=addon)).status_code == 404


async def test_a_model_that_is_served_is_not_deleted(api, db):
    await ready_model(api)
    with db.session() as session:
        base = session.query(ModelRow).one()
        session.add(DeploymentRow(account_id="hearth", id="serving", base_model_uid=base.uid, state="READY"))
    answer = await api.delete(f"{MODELS}/ember")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)
    assert answer.json()["message"].startswith("cannot delete model with active deployments")
    assert "accounts/hearth/deployments/serving" in answer.json()["message"]
