"""Deployment shapes over HTTP: versions, who sees what, what is validated, and what fits a model."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from controlplane.bootstrap import create_key, ensure_account, ensure_user
from controlplane.resources.tables import AuditLogRow, DeploymentShapeVersionRow, ModelRow

PATH = "/v1/accounts/hearth/deploymentShapes"
MATCH = "/v1/accounts/hearth/deploymentShapeVersions:match"
BASE = "accounts/hearth/models/base"
NAME = "accounts/hearth/deploymentShapes/fast"


@pytest.fixture
def as_rival(other_key):
    return {"Authorization": f"Bearer {other_key}"}


@pytest.fixture
def as_platform(db):
    """The key of an admin of the platform's own account."""
    with db.session() as session:
        ensure_account(session, "fireworks", "a@x.org")
        user = ensure_user(session, "fireworks", "admin", "admin@fireworks.example", "admin")
        return {"Authorization": f"Bearer {create_key(session, user, 'test')}"}


async def create(api, shape_id="fast", account="hearth", headers=None, **fields):
    body = {"baseModel": f"accounts/{account}/models/base", **fields}
    path = f"/v1/accounts/{account}/deploymentShapes?deploymentShapeId={shape_id}"
    return await api.post(path, json=body, headers=headers)


async def versions(api, path=f"{PATH}/fast", **query):
    answer = await api.get(f"{path}/versions", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["deploymentShapeVersions"]


async def newest(api, shape_id="fast"):
    return (await versions(api, f"{PATH}/{shape_id}", orderBy="create_time desc"))[0]


async def state(api, version, headers=None, **flags):
    return await api.patch(f"/v1/{version['name']}", json=flags, headers=headers)


async def make_validated(api, shape_id="fast", **fields):
    assert (await create(api, shape_id, **fields)).status_code == 200
    return (await state(api, await newest(api, shape_id), validated=True)).json()


def refusal(answer):
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def test_a_shape_is_created_with_its_first_version(api, base):
    fields = {"displayName": "Fast", "precision": "BF16", "presetType": "FAST", "enableAddons": True}
    made = (await create(api, **fields)).json()
    assert made["name"] == NAME
    assert (made["baseModel"], made["modelType"], made["parameterCount"]) == (BASE, "qwen2", "7")
    assert (made["precision"], made["presetType"], made["enableAddons"]) == ("BF16", "FAST", True)
    assert (await api.get(f"{PATH}/fast?skipShapeValidation=true")).json() == made
    assert (await api.get(PATH)).json()["deploymentShapes"] == [made]
    (version,) = await versions(api)
    assert version["name"].startswith(f"{NAME}/versions/")
    assert version["snapshot"] == made
    assert (version["validated"], version["public"], version["latestValidated"]) == (False, False, False)
    assert (await api.get("/v1/" + version["name"])).json() == version
    assert refusal(await create(api)) == (409, 6, f"{NAME} already exists")


async def test_a_shape_names_itself_and_takes_an_own_models_id(api, base):
    made = (await api.post(PATH, json={"base_model": "base"})).json()
    assert made["baseModel"] == BASE
    assert len(made["name"].rsplit("/", 1)[1]) == 8


REFUSED = [
    ({"baseModel": ""}, 400, "baseModel is required"),
    ({"baseModel": "absent"}, 404, "accounts/hearth/models/absent not found"),
    ({"baseModel": "poet"}, 400, "is an addon"),
    ({"baseModel": "half"}, 400, "is UPLOADING, not READY"),
    ({"draftModel": "absent"}, 404, "accounts/hearth/models/absent not found"),
    ({"draftModel": "poet"}, 400, "is an addon, and draftModel is a base model"),
    ({"draftModel": "half", "ngramSpeculationLength": 3}, 400, "ngramSpeculationLength and draftModel excl"),
    ({"draftTokenCount": 2}, 400, "draftTokenCount 2 needs ngramSpeculationLength or draftModel"),
    (
        {"ngramSpeculationLength": 3, "disableSpeculativeDecoding": True},
        400,
        "disableSpeculativeDecoding and ngramSpeculationLength exclude each other",
    ),
    ({"numLoraDeviceCached": 33, "enableAddons": True}, 400, "numLoraDeviceCached: Input should be less"),
    ({"autoTune": {"longPrompt": True}}, 400, 'unknown field "autoTune"'),
    ({"precision": "FP8"}, 400, "precision FP8 needs a GPU, and models run on the CPU here"),
    ({"precision": "NF4"}, 400, "precision NF4 is not served; use BF16 or FP16"),
    ({"precision": "FP1"}, 400, "'FP1' is none of PRECISION_UNSPECIFIED, FP16"),
    ({"acceleratorType": "H9000"}, 400, "'H9000' is none of ACCELERATOR_TYPE_UNSPECIFIED"),
    ({"presetType": "LAZY"}, 400, "'LAZY' is none of PRESET_TYPE_UNSPECIFIED, MINIMAL"),
    ({"maxContextLength": 2048}, 400, "more than the model's own 1024"),
    ({"acceleratorCount": -1}, 400, "acceleratorCount"),
    ({"colour": "red"}, 400, 'unknown field "colour"'),
]


async def test_what_no_engine_could_be_started_with_is_refused_by_name(api, db, base, add_model):
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid)
    add_model("half", state="UPLOADING")
    for fields, status, words in REFUSED:
        answer = await create(api, **fields)
        assert answer.status_code == status, fields
        assert words in answer.json()["message"]
    assert (await api.get(PATH)).json()["deploymentShapes"] == []


async def test_a_shape_may_be_for_accelerators_that_are_not_here_yet(api, base, monkeypatch):
    made = await create(api, acceleratorType="NVIDIA_B200_180GB", acceleratorCount=2)
    assert made.status_code == 200
    refused = await state(api, await newest(api), validated=True)
    assert refused.status_code == 400
    assert "NVIDIA_B200_180GB cannot be had" in refused.json()["message"]
    here = "controlplane.resources.deployments.engine.local_devices"
    monkeypatch.setattr(here, lambda: ["NVIDIA B200", "NVIDIA B200"])
    assert (await state(api, await newest(api), validated=True)).status_code == 200
    assert await match(api) == ["fast"]
    assert await match(api, acceleratorType="NVIDIA_H100_80GB") == []
    monkeypatch.setattr(here, list)
    assert await match(api) == []


async def test_a_change_of_a_shape_is_a_new_version_and_the_earlier_ones_stay(api, base):
    first = (await create(api, displayName="One")).json()
    second = (await api.patch(f"{PATH}/fast", json={"displayName": "Two", "maxContextLength": 512})).json()
    assert (second["displayName"], second["maxContextLength"]) == ("Two", 512)
    assert second["updateTime"] > first["updateTime"]
    same = await api.patch(f"{PATH}/fast", json=second)
    assert same.json() == second
    assert [version["snapshot"] for version in await versions(api)] == [first, second]


async def test_the_base_model_of_a_shape_stays(api, base, add_model):
    add_model("other")
    await create(api)
    refused = await api.patch(f"{PATH}/fast", json={"baseModel": "other"})
    assert f"baseModel of a shape cannot be changed; it is {BASE}" in refused.json()["message"]
    assert (await api.patch(f"{PATH}/fast", json={"baseModel": "base"})).status_code == 200
    assert len(await versions(api)) == 1


async def test_a_change_can_go_from_the_latest_validated_version(api, base):
    refused_first = await create(api, precision="BF16", description="good")
    assert refused_first.status_code == 200
    path = f"{PATH}/fast?fromLatestValidated=true"
    assert refusal(await api.patch(path, json={"maxContextLength": 1})) == (
        400,
        9,
        f"{NAME} has no validated version to go from",
    )
    await state(api, await newest(api), validated=True)
    await api.patch(f"{PATH}/fast", json={"precision": "FP16", "description": "bad", "maxContextLength": 64})
    made = (await api.patch(path, json={"maxContextLength": 64})).json()
    assert (made["precision"], made["description"], made["maxContextLength"]) == ("BF16", "good", 64)
    assert len(await versions(api)) == 3


async def test_only_what_is_said_of_a_version_can_be_changed(api, base):
    await create(api)
    version = await newest(api)
    fixed = {"snapshot": {"baseModel": "x"}, "latestValidated": False}
    changed = (await state(api, version, validated=True, **fixed)).json()
    assert (changed["validated"], changed["latestValidated"]) == (True, True)
    assert changed["snapshot"] == version["snapshot"]
    masked = await api.patch(f"/v1/{version['name']}?updateMask=public", json={"validated": False})
    assert masked.json()["validated"]


async def test_a_shape_has_one_latest_validated_version(api, base):
    await create(api)
    for length in (10, 20):
        await api.patch(f"{PATH}/fast", json={"maxContextLength": length})
    one, two, three = await versions(api)

    async def latest():
        return [version["latestValidated"] for version in await versions(api)]

    await state(api, two, validated=True)
    assert await latest() == [False, True, False]
    await state(api, one, validated=True)
    assert await latest() == [False, True, False]
    await state(api, three, validated=True)
    assert await latest() == [False, False, True]
    await state(api, three, validated=False)
    assert await latest() == [False, True, False]
    listed = await versions(api, filter="latest_validated=true")
    assert [version["name"] for version in listed] == [two["name"]]


async def test_a_version_is_public_only_with_its_base_model(api, db, base, as_rival, add_model):
    await create(api)
    version = await newest(api)
    assert refusal(await state(api, version, public=True)) == (
        400,
        9,
        f"{version['name']} cannot be public: its base model {BASE} is not",
    )
    with db.session() as session:
        session.get(ModelRow, base.uid).public = True
    assert (await state(api, version, public=True)).json()["public"]
    assert (await api.get("/v1/" + version["name"], headers=as_rival)).status_code == 200
    with db.session() as session:
        session.get(ModelRow, base.uid).public = False
    assert (await api.get("/v1/" + version["name"], headers=as_rival)).status_code == 404


async def test_others_see_of_a_shape_what_is_public_of_it(api, db, base, as_rival):
    with db.session() as session:
        session.get(ModelRow, base.uid).public = True
    await create(api, "secret")
    shown = (await create(api, description="for all")).json()
    version = await newest(api)
    await state(api, version, public=True)
    await api.patch(f"{PATH}/fast", json={"description": "a draft"})
    assert (await api.get(f"{PATH}/fast", headers=as_rival)).json() == shown
    assert (await api.get(PATH, headers=as_rival)).json()["deploymentShapes"] == [shown]
    by_draft = await api.get(PATH, params={"filter": 'description="a draft"'}, headers=as_rival)
    assert by_draft.json()["deploymentShapes"] == []
    listed = (await api.get(f"{PATH}/fast/versions", headers=as_rival)).json()["deploymentShapeVersions"]
    assert [found["name"] for found in listed] == [version["name"]]
    for path in (f"{PATH}/secret", f"{PATH}/secret/versions", f"{PATH}/absent/versions"):
        assert (await api.get(path, headers=as_rival)).status_code == 404
    draft = await newest(api)
    for answer in (
        await api.get("/v1/" + draft["name"], headers=as_rival),
        await state(api, version, headers=as_rival, public=False),
        await api.patch(f"{PATH}/fast", json={"description": "mine"}, headers=as_rival),
        await api.delete(f"{PATH}/fast", headers=as_rival),
        await create(api, headers=as_rival),
        await api.post(MATCH, json={}, headers=as_rival),
    ):
        assert answer.status_code == 404


async def test_shapes_are_listed_for_a_model_or_an_addons_base(api, base, add_model):
    add_model("other")
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid)
    await create(api)
    await create(api, "else", baseModel="other")
    for target in ("base", BASE, "poet"):
        found = (await api.get(PATH, params={"targetModel": target})).json()["deploymentShapes"]
        assert [shape["name"] for shape in found] == [NAME]
    assert (await api.get(PATH, params={"targetModel": "absent"})).status_code == 404


async def test_the_versions_of_all_shapes_can_be_listed_and_other_wildcards_are_refused(api, base):
    await create(api)
    await create(api, "slow")
    found = await versions(api, f"{PATH}/-")
    assert {version["name"].split("/")[3] for version in found} == {"fast", "slow"}
    for path in ("/v1/accounts/-/deploymentShapes", "/v1/accounts/-/deploymentShapes/-/versions"):
        answer = await api.get(path)
        assert answer.status_code == 400
        assert "the account - is not supported" in answer.json()["message"]


async def test_lists_go_page_by_page(api, base):
    for number in range(3):
        await create(api, f"s{number}")
    first = (await api.get(PATH, params={"pageSize": 2})).json()
    rest = (await api.get(PATH, params={"pageSize": 2, "pageToken": first["nextPageToken"]})).json()
    shapes = first["deploymentShapes"] + rest["deploymentShapes"]
    names = [shape["name"].rsplit("/", 1)[1] for shape in shapes]
    assert (names, first["totalSize"], rest["nextPageToken"]) == (["s0", "s1", "s2"], 3, "")


async def test_lists_are_filtered_and_ordered_by_what_they_show(api, db, base, as_rival):
    with db.session() as session:
        session.get(ModelRow, base.uid).public = True
    for number, length in enumerate((30, 10, 20)):
        await create(api, f"s{number}", maxContextLength=length, precision="BF16", presetType="CHAT")
        await state(api, await newest(api, f"s{number}"), public=True)
    chosen = {
        "filter": 'precision="BF16" AND max_context_length>=20 AND parameter_count=7 AND base_model="'
        + f'{BASE}" AND preset_type=CHAT AND enable_addons=false AND create_time>"2020-01-01T00:00:00Z"',
        "orderBy": "max_context_length desc",
        "readMask": "name",
    }
    names = [f"accounts/hearth/deploymentShapes/s{number}" for number in (0, 2)]
    for headers in (None, as_rival):
        found = await api.get(PATH, params=chosen, headers=headers)
        assert found.json()["deploymentShapes"] == [{"name": name} for name in names]
    query = {
        "filter": "snapshot.max_context_length<=20 AND public=true",
        "orderBy": "snapshot.update_time desc",
    }
    shown = await versions(api, f"{PATH}/-", **query)
    assert [version["snapshot"]["maxContextLength"] for version in shown] == [20, 10]


async def test_shapes_are_found_by_how_they_guess_ahead(api, add_model, as_rival):
    add_model(public=True)
    version = await make_validated(api, ngramSpeculationLength=3, draftTokenCount=5)
    await create(api, "plain")
    await state(api, version, public=True)
    asked = {"filter": "ngram_speculation_length=3 AND draft_token_count>4", "readMask": "name"}
    for headers in (None, as_rival):
        found = await api.get(PATH, params=asked, headers=headers)
        assert found.json()["deploymentShapes"] == [{"name": "accounts/hearth/deploymentShapes/fast"}]
    shown = await versions(api, f"{PATH}/-", filter="snapshot.draft_token_count=5")
    assert [each["snapshot"]["ngramSpeculationLength"] for each in shown] == [3]


async def test_a_deleted_shape_takes_its_versions_along(api, db, base):
    await create(api)
    version = await newest(api)
    shown = await api.get(f"{PATH}/fast")
    await api.patch(f"{PATH}/fast", json={"description": "newer"})
    stale = await api.delete(f"{PATH}/fast", headers={"If-Match": shown.headers["etag"]})
    assert stale.status_code == 412
    assert (await api.delete(f"{PATH}/fast")).json() == {}
    for path in ("/v1/" + version["name"], f"{PATH}/fast", f"{PATH}/fast/versions"):
        assert (await api.get(path)).status_code == 404
    again = (await create(api)).json()
    assert again["name"] == NAME
    assert (await newest(api))["name"] != version["name"]
    with db.session() as session:
        actions = list(session.scalars(select(AuditLogRow.action)))
    assert actions.count("DeleteDeploymentShape") == 1


async def test_a_shape_of_a_model_that_is_gone_fits_nothing(api, db, base, add_model):
    await make_validated(api)
    with db.session() as session:
        session.delete(session.get(ModelRow, base.uid))
    add_model()
    assert (await api.get(f"{PATH}/fast")).json()["baseModel"] == BASE
    assert await match(api) == []
    refused = await state(api, await newest(api), validated=False)
    assert refused.status_code == 200
    assert "is not READY" in (await state(api, await newest(api), validated=True)).json()["message"]


async def match(api, model="base", parent="accounts/hearth", headers=None, path=MATCH, **fields):
    body = {"createDeploymentRequest": {"parent": parent, "deployment": {"baseModel": model, **fields}}}
    answer = await api.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()["deploymentShapeVersions"]
    return [version["snapshot"]["name"].rsplit("/", 1)[1] for version in found]


async def test_matching_finds_the_validated_versions_that_fit_newest_first(api, base, add_model):
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid, facts={"r": 8})
    add_model("other")
    await make_validated(api, "plain")
    await make_validated(api, "multi-lora", enableAddons=True)
    await make_validated(api, "short", maxContextLength=128)
    await create(api, "untried")
    await make_validated(api, "elsewhere", baseModel="other")
    assert await match(api) == ["short", "multi-lora", "plain"]
    assert await match(api, "poet") == ["short", "multi-lora", "plain"]
    assert await match(api, enableAddons=True) == ["multi-lora"]
    assert await match(api, maxContextLength=128) == ["short", "multi-lora", "plain"]
    assert await match(api, maxContextLength=64) == ["multi-lora", "plain"]
    assert await match(api, maxContextLength=9999) == []
    assert await match(api, deploymentShape="plain") == ["plain"]
    assert await match(api, deploymentShape="plain", enableAddons=True) == []


async def test_matching_shows_what_would_be_used_and_refuses_what_is_not_its_own(api, base):
    version = await make_validated(api)
    body = {"createDeploymentRequest": {"parent": "accounts/hearth", "deployment": {"baseModel": "base"}}}
    assert (await api.post(MATCH, json=body)).json() == {
        "deploymentShapeVersions": [version],
        "nextPageToken": "",
        "totalSize": 1,
    }
    for parent, model, status, words in (
        ("accounts/rival", "base", 400, "is another account than accounts/hearth"),
        ("accounts/hearth", "absent", 404, "not found"),
        ("accounts/hearth", "", 400, "baseModel is required"),
    ):
        body = {"createDeploymentRequest": {"parent": parent, "deployment": {"baseModel": model}}}
        answer = await api.post(MATCH, json=body)
        assert (answer.status_code, words in answer.json()["message"]) == (status, True)


async def test_nobody_chooses_for_others_but_the_platform(api, db, add_model, as_rival, as_platform):
    add_model(account_id="fireworks", public=True)
    public = "accounts/fireworks/models/base"
    for account, headers in (("rival", as_rival), ("fireworks", as_platform)):
        made = await create(api, "shape", account, headers, baseModel=public)
        assert made.status_code == 200
        name = f"/v1/accounts/{account}/deploymentShapes/shape"
        listed = (await api.get(f"{name}/versions", headers=headers)).json()["deploymentShapeVersions"]
        said = await state(api, listed[0], headers, validated=True, public=True)
        assert said.status_code == 200
    body = {"createDeploymentRequest": {"parent": "accounts/hearth", "deployment": {"baseModel": public}}}
    found = (await api.post(MATCH, json=body)).json()["deploymentShapeVersions"]
    assert [version["snapshot"]["name"] for version in found] == ["accounts/fireworks/deploymentShapes/shape"]
    made = await api.post(
        "/v1/accounts/hearth/deployments",
        json={"baseModel": public, "deploymentShape": "accounts/rival/deploymentShapes/shape"},
    )
    assert made.json()["deploymentShape"].startswith("accounts/rival/deploymentShapes/shape/versions/")


async def test_changes_that_arrive_together_each_make_a_version(api, db, base):
    await create(api)
    answers = await asyncio.gather(
        *(api.patch(f"{PATH}/fast", json={"maxContextLength": length}) for length in range(1, 6)),
    )
    assert {answer.status_code for answer in answers} == {200}
    found = await versions(api)
    await asyncio.gather(*(state(api, version, validated=True) for version in found))
    with db.session() as session:
        rows = list(session.scalars(select(DeploymentShapeVersionRow)))
    assert sorted(row.number for row in rows) == [1, 2, 3, 4, 5, 6]
    assert [row.number for row in rows if row.latest_validated] == [6]


async def test_of_many_creates_of_one_id_one_wins(api, base):
    answers = await asyncio.gather(*(create(api) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert len(await versions(api)) == 1
