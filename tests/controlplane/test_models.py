"""Models: upload, check, metadata, and what an unfit set of files is told."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from controlplane.resources.tables import GarbageRow, ModelRow

pytestmark = pytest.mark.usefixtures("uploads_worker")

MODELS = "/v1/accounts/hearth/models"
FILES = {
    path.name: path.read_bytes()
    for path in sorted((Path(__file__).resolve().parents[2] / "quickstart" / "model").iterdir())
    if path.is_file()
}


async def create(api, model_id="ember", **model):
    answer = await api.post(MODELS, json={"modelId": model_id, "model": {"kind": "HF_BASE_MODEL", **model}})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def upload(api, files, model_id="ember"):
    """Registers the files, puts them to their URLs, and returns the answer of the check."""
    sizes = {name: len(content) for name, content in files.items()}
    registered = await api.post(f"{MODELS}/{model_id}:getUploadEndpoint", json={"filenameToSize": sizes})
    assert registered.status_code == 200, registered.text
    async with httpx.AsyncClient() as plain:
        for name, url in registered.json()["filenameToSignedUrls"].items():
            assert (await plain.put(url, content=files[name])).status_code == 200
    return await api.get(f"{MODELS}/{model_id}:validateUpload")


async def test_a_whole_base_model_is_ready_and_described(api):
    assert (await create(api))["state"] == "UPLOADING"
    checked = await upload(api, FILES)
    assert checked.status_code == 200, checked.text
    model = (await api.get(f"{MODELS}/ember")).json()
    config = json.loads(FILES["config.json"])
    assert model["state"] == "READY"
    assert model["contextLength"] == config["max_position_embeddings"]
    assert int(model["baseModelDetails"]["parameterCount"]) > 100_000
    assert model["baseModelDetails"]["modelType"] == config["model_type"]
    assert model["conversationConfig"]["style"] == "jinja"
    assert (model["tunable"], model["supportsLora"]) == (True, True)
    assert model["deployedModelRefs"] == []


async def test_downloads_give_back_what_was_uploaded(api):
    await create(api)
    await upload(api, FILES)
    urls = (await api.get(f"{MODELS}/ember:getDownloadEndpoint")).json()["filenameToSignedUrls"]
    assert urls.keys() == FILES.keys()
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(urls["config.json"])).content == FILES["config.json"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({k: v for k, v in FILES.items() if not k.endswith(".safetensors")}, "safetensors"),
        ({**FILES, "model.safetensors": FILES["model.safetensors"][:-100]}, "model.safetensors"),
        ({**FILES, "config.json": b"{"}, "config.json"),
        ({**FILES, "evil.pkl": b"x"}, "evil.pkl"),
        ({**FILES, "modeling.py": b"x"}, "modeling.py"),
    ],
)
async def test_unfit_files_are_named_and_the_model_is_not_ready(api, files, words):
    await create(api)
    answer = await upload(api, files)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"] + json.dumps(answer.json()["details"])
    model = (await api.get(f"{MODELS}/ember")).json()
    assert (model["state"], model["status"]["code"]) == ("UPLOADING", "INVALID_ARGUMENT")


async def test_a_corrected_upload_makes_a_refused_model_ready(api):
    await create(api)
    assert (await upload(api, {**FILES, "config.json": b"{"})).status_code == 400
    assert (await upload(api, FILES)).status_code == 200


async def test_a_check_without_files_is_refused(api):
    await create(api)
    answer = await api.get(f"{MODELS}/ember:validateUpload")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)


async def test_shortcuts_of_the_check_are_refused_by_name(api):
    await create(api)
    for query in ("trustRemoteCode", "skipHfConfigValidation", "configOnly"):
        answer = await api.get(f"{MODELS}/ember:validateUpload?{query}=true")
        assert answer.status_code == 400
        assert query in answer.json()["message"]


async def test_an_addon_needs_a_ready_base_of_the_right_kind(api):
    def addon(base):
        peft = {"baseModel": base, "r": 8, "targetModules": ["q_proj"]}
        return {"modelId": "addon", "model": {"kind": "HF_PEFT_ADDON", "peftDetails": peft}}

    assert (await api.post(MODELS, json={"modelId": "addon", "model": {}})).status_code == 400
    assert (await api.post(MODELS, json=addon("nothing"))).status_code == 404
    await create(api)
    not_ready = await api.post(MODELS, json=addon("ember"))
    assert (not_ready.status_code, not_ready.json()["code"]) == (400, 9)
    await upload(api, FILES)
    made = (await api.post(MODELS, json=addon("accounts/hearth/models/ember"))).json()
    assert made["peftDetails"]["baseModel"] == "accounts/hearth/models/ember"
    on_addon = await api.post(MODELS, json={**addon("addon"), "modelId": "second"})
    assert on_addon.status_code == 400
    in_use = await api.delete(f"{MODELS}/ember")
    assert (in_use.status_code, in_use.json()["code"]) == (400, 9)
    assert "accounts/hearth/models/addon" in in_use.json()["message"]


async def test_metadata_is_updated_and_the_rest_is_fixed(api):
    await create(api)
    changed = await api.patch(f"{MODELS}/ember", json={"displayName": "Ember", "public": True})
    assert (changed.json()["displayName"], changed.json()["public"]) == ("Ember", True)
    fixed = await api.patch(f"{MODELS}/ember", json={"kind": "HF_PEFT_ADDON"})
    assert (fixed.status_code, fixed.json()["code"]) == (400, 3)


async def test_public_models_are_read_by_other_accounts_and_changed_by_none(api, http, other_key):
    await create(api, "open", public=True)
    await upload(api, FILES, "open")
    await create(api, "own")
    await create(api, "unchecked", public=True)
    http.headers["Authorization"] = f"Bearer {other_key}"
    assert [m["name"] for m in (await http.get(MODELS)).json()["models"]] == ["accounts/hearth/models/open"]
    assert (await http.get(f"{MODELS}/open")).status_code == 200
    for answer in (
        await http.get(f"{MODELS}/own"),
        await http.get(f"{MODELS}/unchecked"),
        await http.get(f"{MODELS}/own:getDownloadEndpoint"),
        await http.patch(f"{MODELS}/open", json={"displayName": "mine"}),
        await http.delete(f"{MODELS}/open"),
        await http.post(f"{MODELS}/open:getUploadEndpoint", json={"filenameToSize": {"a": 1}}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, 5)


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ({"kind": "FLUMINA_ADDON"}, "kind"),
        ({"defaultDraftModel": "x"}, "defaultDraftModel"),
        ({"conversationConfig": {"style": "jinja"}}, "conversationConfig"),
        ({"displayName": "x" * 64}, "displayName"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(api, model, field):
    answer = await api.post(MODELS, json={"modelId": "m", "model": model})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert field in answer.text


async def test_a_deleted_model_leaves_nothing_but_a_note_to_clean_up(api, db):
    await create(api)
    await upload(api, FILES)
    assert (await api.delete(f"{MODELS}/ember")).json() == {}
    with db.session() as session:
        assert session.query(ModelRow).count() == 0
        emptied = {row.prefix.partition("/models/")[2].count("/") for row in session.query(GarbageRow)}
        assert emptied == {1, 2}  # the model's folder, and within it the one that signed URLs write to


async def test_of_a_public_addon_others_see_nothing_that_is_private(api, db, other_key):
    await create(api, "base")
    await create(api, "warm")
    with db.session() as session:
        base, addon = (session.query(ModelRow).filter_by(id=name).one() for name in ("base", "warm"))
        base.state, base.facts = "READY", {"supports_lora": True, "model_type": "secret"}
        addon.state, addon.kind, addon.public, addon.facts = "READY", "HF_PEFT_ADDON", True, {"r": 8}
        addon.base_model_uid, addon.fine_tuning_job = base.uid, "accounts/hearth/fineTuningJobs/hidden"
    assert (await api.get(f"{MODELS}/warm")).json()["peftDetails"][
        "baseModel"
    ] == "accounts/hearth/models/base"
    api.headers["Authorization"] = f"Bearer {other_key}"
    for answer in (await api.get(f"{MODELS}/warm"), await api.get(MODELS)):
        assert "models/warm" in answer.text
        assert not any(word in answer.text for word in ("models/base", "secret", "hidden"))
    job = {"warmStartFrom": "accounts/hearth/models/warm", "dataset": "d", "conversation": {}}
    answer = await api.post("/v1/accounts/rival/fineTuningJobs", json=job)
    assert answer.status_code == 400
    assert "models/base" not in answer.text


async def test_details_of_the_other_kind_are_refused(api):
    for model, field in (
        ({"kind": "HF_BASE_MODEL", "peftDetails": {"baseModel": "x"}}, "peftDetails"),
        ({"kind": "HF_PEFT_ADDON", "baseModelDetails": {}}, "baseModelDetails"),
        ({"peftDetails": {"baseModel": "x", "mergeAddonModelName": "y"}}, "mergeAddonModelName"),
    ):
        answer = await api.post(MODELS, json={"modelId": "m", "model": model})
        assert answer.status_code == 400
        assert field in answer.json()["message"]


async def test_a_model_that_was_read_can_be_written_back_as_it_is(api):
    await create(api)
    await upload(api, FILES)
    model = (await api.get(f"{MODELS}/ember")).json()
    answer = await api.patch(f"{MODELS}/ember", json={**model, "displayName": "again"})
    assert answer.status_code == 200, answer.text
    other = {**model["conversationConfig"], "template": "other"}
    refused = await api.patch(f"{MODELS}/ember", json={"conversationConfig": other})
    assert (refused.status_code, "conversationConfig" in refused.json()["message"]) == (400, True)
