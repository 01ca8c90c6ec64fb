"""Deployments that take their settings from a shape."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from controlplane.resources.tables import DeploymentRow
from tests.controlplane.test_deployment_shapes import create as create_shape
from tests.controlplane.test_deployment_shapes import make_validated, newest, state

PATH = "/v1/accounts/hearth/deployments"
BASE = "accounts/hearth/models/base"
SHAPES = "/v1/accounts/hearth/deploymentShapes"
pytestmark = pytest.mark.usefixtures("base")


async def create(api, shape, query="", **fields):
    body = {"baseModel": BASE, "deploymentShape": shape, **fields}
    return await api.post(f"{PATH}?deploymentId=d{query}", json=body)


async def change(api, query="", **fields):
    return await api.patch(f"{PATH}/d{query}", json=fields)


def refusal(answer):
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


def row(db):
    with db.session() as session:
        return session.scalars(select(DeploymentRow)).one()


async def test_what_the_request_leaves_unset_is_the_shapes(api):
    version = await make_validated(api, precision="BF16", maxContextLength=512, enableAddons=True)
    for shape in ("fast", "accounts/hearth/deploymentShapes/fast", version["name"], "default"):
        made = (await create(api, shape, "&validateOnly=true", minReplicaCount=2)).json()
        assert made["deploymentShape"] == version["name"]
        assert (made["precision"], made["maxContextLength"], made["enableAddons"]) == ("BF16", 512, True)
        assert made["minReplicaCount"] == 2
    made = (await create(api, "fast")).json()
    assert (await api.get(f"{PATH}/d")).json()["deploymentShape"] == version["name"]
    listed = await api.get(PATH, params={"filter": f'deployment_shape="{version["name"]}"'})
    assert listed.json()["deployments"] == [made]


async def test_a_shape_brings_its_base_model(api):
    await make_validated(api)
    made = await api.post(PATH, json={"deploymentShape": "fast"})
    assert made.json()["baseModel"] == BASE
    assert refusal(await api.post(PATH, json={"deploymentShape": "default"}))[2] == "baseModel is required"


async def test_a_shape_leaves_the_rest_to_the_request(api):
    await make_validated(api, enableAddons=True)
    made = (await create(api, "fast", precision="FP16", maxContextLength=64, enableAddons=True)).json()
    assert (made["precision"], made["maxContextLength"], made["enableAddons"]) == ("FP16", 64, True)


async def test_what_contradicts_the_shape_is_refused_with_both_values(api, db):
    version = await make_validated(api, precision="BF16", maxContextLength=512)
    cases = [
        ({"precision": "FP16"}, "precision is FP16, and BF16 in"),
        ({"maxContextLength": 256}, "maxContextLength is 256, and 512 in"),
        ({"enableAddons": True}, "enableAddons is true, and false in"),
    ]
    for fields, words in cases:
        status, code, message = refusal(await create(api, "fast", **fields))
        assert (status, code) == (400, 3)
        assert f"{words} {version['name']}" in message
    with db.session() as session:
        assert session.scalars(select(DeploymentRow)).all() == []
    made = await create(api, "fast", "&skipShapeValidation=true", precision="FP16", enableAddons=True)
    shown = made.json()
    assert (shown["precision"], shown["maxContextLength"], shown["enableAddons"]) == ("FP16", 512, True)
    assert shown["deploymentShape"] == version["name"]


async def test_a_shape_says_whether_tokens_are_guessed_ahead_unless_that_is_switched_off(api):
    version = await make_validated(api, ngramSpeculationLength=3, draftTokenCount=5)
    made = (await create(api, "fast", "&validateOnly=true")).json()
    assert (made["ngramSpeculationLength"], made["draftTokenCount"]) == (3, 5)
    off = (await create(api, "fast", "&disableSpeculativeDecoding=true")).json()
    assert (off["ngramSpeculationLength"], off["draftTokenCount"]) == (0, 0)
    assert off["deploymentShape"] == version["name"]


async def test_a_shape_may_forbid_to_guess_ahead(api):
    version = await make_validated(api, disableSpeculativeDecoding=True)
    status, code, message = refusal(await create(api, "fast", ngramSpeculationLength=3))
    assert (status, code) == (400, 3)
    words = f"ngramSpeculationLength is 3, and disableSpeculativeDecoding is true in {version['name']}"
    assert words in message
    made = await create(api, "fast", "&skipShapeValidation=true", ngramSpeculationLength=3)
    assert made.json()["ngramSpeculationLength"] == 3


async def test_sessions_are_kept_where_the_shape_or_the_request_says_so(api, db):
    await make_validated(api, enableSessionAffinity=True)
    assert (await create(api, "fast", "&validateOnly=true")).json()["enableSessionAffinity"]
    assert not (await create(api, "")).json()["enableSessionAffinity"]
    assert (await change(api, enableSessionAffinity=True)).json()["enableSessionAffinity"]
    listed = await api.get(PATH, params={"filter": "enable_session_affinity = true"})
    assert len(listed.json()["deployments"]) == 1
    assert row(db).generation == 1, "engines need not know of it"
    otherwise = await change(api, deploymentShape="fast", enableSessionAffinity=False)
    assert not otherwise.json()["enableSessionAffinity"], "the request says so"
    assert (await change(api, deploymentShape="")).json()["deploymentShape"] == ""
    assert (await change(api, deploymentShape="fast")).json()["enableSessionAffinity"]


async def test_only_a_validated_shape_is_taken_unless_told_otherwise(api):
    await create_shape(api, maxContextLength=32)
    version = await newest(api)
    status, code, message = refusal(await create(api, "fast"))
    assert (status, code) == (400, 9)
    assert "accounts/hearth/deploymentShapes/fast has no validated version" in message
    assert f"{version['name']} is not validated" in (await create(api, version["name"])).json()["message"]
    made = await create(api, "fast", "&skipShapeValidation=true")
    assert (made.json()["deploymentShape"], made.json()["maxContextLength"]) == (version["name"], 32)


async def test_a_shapes_name_stands_for_its_newest_validated_version(api):
    validated = await make_validated(api, maxContextLength=32)
    await api.patch(f"{SHAPES}/fast", json={"maxContextLength": 64})
    assert (await create(api, "fast")).json()["deploymentShape"] == validated["name"]


@pytest.mark.parametrize(
    ("shape", "status", "words"),
    [
        ("absent", 404, "accounts/hearth/deploymentShapes/absent not found"),
        ("fast/versions/12345678", 404, "deploymentShapes/fast/versions/12345678 not found"),
        ("accounts/rival/deploymentShapes/x", 404, "accounts/rival/deploymentShapes/x not found"),
        ("accounts/hearth/models/base", 400, "and may go on with /versions/{version}"),
        ("fast/versions/", 400, "and may go on with /versions/{version}"),
        ("for-other", 400, "is for accounts/hearth/models/other, and baseModel is accounts/hearth/models/b"),
    ],
)
async def test_a_shape_that_cannot_be_taken_is_refused_by_name(api, add_model, shape, status, words):
    add_model("other")
    await create_shape(api)
    await make_validated(api, "for-other", baseModel="accounts/hearth/models/other")
    answer = await create(api, shape)
    assert answer.status_code == status
    assert words in answer.json()["message"]


async def test_default_is_the_newest_shape_that_fits_the_request(api):
    status, code, message = refusal(await create(api, "default"))
    assert (status, code) == (400, 9)
    assert f"no validated deployment shape fits {BASE} as requested" in message
    plain = await make_validated(api, "plain")
    lora = await make_validated(api, "lora", enableAddons=True, maxContextLength=64)
    await create_shape(api, "untried")
    chosen = (await create(api, "default", "&validateOnly=true")).json()
    assert chosen["deploymentShape"] == lora["name"]
    chosen = (await create(api, "default", "&validateOnly=true", maxContextLength=128)).json()
    assert chosen["deploymentShape"] == plain["name"]


async def test_who_accepts_the_risk_of_no_shape_names_none(api):
    await make_validated(api)
    status, code, message = refusal(await create(api, "fast", "&acceptShapelessRisk=true"))
    assert (status, code) == (400, 3)
    assert "acceptShapelessRisk and deploymentShape 'fast' exclude each other" in message
    assert (await create(api, "", "&acceptShapelessRisk=true")).json()["deploymentShape"] == ""


async def test_an_update_holds_a_deployment_to_its_shape(api, db):
    version = await make_validated(api, maxContextLength=512)
    await create(api, "fast")
    status, code, message = refusal(await change(api, maxContextLength=256))
    assert (status, code) == (400, 3)
    assert f"maxContextLength is 256, and 512 in {version['name']}" in message
    assert (await change(api, precision="BF16")).json()["precision"] == "BF16"
    changed = (await change(api, "?skipShapeValidation=true", maxContextLength=256)).json()
    assert (changed["maxContextLength"], changed["deploymentShape"]) == (256, version["name"])
    await api.delete(f"{SHAPES}/fast")
    assert (await change(api, maxContextLength=128)).status_code == 200
    assert row(db).generation == 4


async def test_an_update_to_another_shape_takes_its_settings(api, db):
    await make_validated(api, maxContextLength=512, precision="BF16")
    lora = await make_validated(api, "lora", enableAddons=True, maxContextLength=64)
    await create(api, "fast")
    with db.session() as session:
        session.execute(update(DeploymentRow).values(state="READY"))
    changed = (await change(api, baseModel=BASE, deploymentShape="lora")).json()
    assert changed["deploymentShape"] == lora["name"]
    assert (changed["maxContextLength"], changed["enableAddons"], changed["precision"]) == (64, True, "BF16")
    assert (changed["state"], row(db).generation) == ("UPDATING", 2)
    with db.session() as session:
        session.execute(update(DeploymentRow).values(state="READY"))
    same = (await change(api, deploymentShape="lora")).json()
    assert (same["state"], row(db).generation) == ("READY", 2)
    refused = await change(api, deploymentShape="fast", maxContextLength=7)
    assert "maxContextLength is 7, and 512 in" in refused.json()["message"]
    left = (await change(api, "?updateMask=deploymentShape")).json()
    assert (left["deploymentShape"], left["maxContextLength"]) == ("", 64)


async def test_a_new_validated_version_reaches_a_deployment_when_it_is_named_again(api):
    await make_validated(api, maxContextLength=64)
    first = (await create(api, "fast")).json()["deploymentShape"]
    await api.patch(f"{SHAPES}/fast", json={"maxContextLength": 128})
    await state(api, await newest(api), validated=True)
    shown = (await api.get(f"{PATH}/d")).json()
    assert (shown["deploymentShape"], shown["maxContextLength"]) == (first, 64)
    again = (await change(api, deploymentShape="fast")).json()
    assert again["maxContextLength"] == 128
    assert again["deploymentShape"] != first
