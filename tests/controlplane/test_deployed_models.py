"""Deployed models over HTTP: what fits where, which one is the default. No worker runs here."""

import asyncio

import pytest
from sqlalchemy import select, update

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow
from tests.controlplane.roles import add_user

PATH = "/v1/accounts/hearth/deployedModels"
NAME = "accounts/hearth/deployedModels/"
DEPLOYMENT = "/v1/accounts/hearth/deployments/one"


@pytest.fixture
def world(api, db):
    """Two base models, deployments of all kinds, and addons of the first."""
    with db.session() as session:
        ensure_account(session, "rival", "a@x.org")

        def add(row):
            session.add(row)
            session.flush()
            return row

        def model(model_id, **values):
            fields = {"kind": "HF_PEFT_ADDON", "state": "READY", "account_id": "hearth", "facts": {"r": 8}}
            return add(ModelRow(id=model_id, **fields | values))

        def deployment(deployment_id, base, account_id="hearth", **values):
            fields = {"state": "READY", "enable_addons": True}
            add(
                DeploymentRow(
                    account_id=account_id, id=deployment_id, base_model_uid=base.uid, **fields | values
                )
            )

        base = model("base", kind="HF_BASE_MODEL")
        other = model("other", kind="HF_BASE_MODEL")
        for deployment_id in ("one", "two"):
            deployment(deployment_id, base)
        deployment("plain", base, enable_addons=False)
        deployment("foreign", other)
        deployment("leaving", base, state="DELETING")
        deployment("gone", base, state="DELETED")
        deployment("theirs", base, account_id="rival")
        model("poet", base_model_uid=base.uid)
        model("wide", base_model_uid=base.uid, facts={"r": 128})
        model("half", base_model_uid=base.uid, state="UPLOADING")
        model("secret", base_model_uid=base.uid, account_id="rival")
        model("shared", base_model_uid=base.uid, account_id="rival", public=True)


def rows(db, table=DeployedModelRow):
    with db.session() as session:
        return list(session.scalars(select(table)))


async def load(api, model="poet", deployment="one", **fields):
    return await api.post(PATH, json={"model": model, "deployment": deployment, **fields})


def set_state(db, state):
    with db.session() as session:
        session.execute(update(DeployedModelRow).values(state=state))


async def test_loading_an_addon_is_recorded_and_left_to_the_workers(api, db, world):
    made = (await load(api, displayName="Poet", description="It rhymes")).json()
    assert made["name"].startswith(NAME + "poet-")
    assert len(made["name"]) == len(NAME + "poet-") + 8
    assert (made["model"], made["deployment"]) == (
        "accounts/hearth/models/poet",
        "accounts/hearth/deployments/one",
    )
    assert (made["state"], made["default"], made["serverless"]) == ("DEPLOYING", True, False)
    assert made["status"]["message"] == "waiting for a worker to load it"
    assert (await api.get("/v1/" + made["name"])).json() == made
    assert (await api.get(PATH)).json()["deployedModels"] == [made]
    due = {row.id: row.next_reconcile_at is not None for row in rows(db, DeploymentRow)}
    assert due["one"] and not due["two"]


REFUSED = [
    ("poet", "", 400, 3, "deployment is required"),
    ("", "one", 400, 3, "model is required"),
    ("poet", "absent", 404, 5, "accounts/hearth/deployments/absent not found"),
    ("poet", "gone", 404, 5, "accounts/hearth/deployments/gone not found"),
    ("poet", "accounts/rival/deployments/theirs", 404, 5, "accounts/rival/deployments/theirs not found"),
    ("poet", "leaving", 400, 9, "is being deleted"),
    ("poet", "plain", 400, 9, "takes no addons; set its enableAddons"),
    ("poet", "foreign", 400, 9, "addon of another base model than accounts/hearth/models/other"),
    ("base", "foreign", 400, 9, "serves accounts/hearth/models/other, not accounts/hearth/models/base"),
    ("absent", "one", 404, 5, "accounts/hearth/models/absent not found"),
    ("accounts/rival/models/secret", "one", 404, 5, "accounts/rival/models/secret not found"),
    ("half", "one", 400, 9, "is UPLOADING, not READY"),
    ("wide", "one", 400, 9, "has rank 128, and engines take ranks up to 64"),
    ("Poet!", "one", 400, 3, "must contain only lower-case letters"),
]


async def test_what_does_not_fit_is_refused_by_name(api, db, world):
    for model, deployment, status, code, words in REFUSED:
        answer = await load(api, model, deployment)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (model, deployment)
        assert words in answer.json()["message"]
    assert rows(db) == []


async def test_serverless_and_merging_are_refused_by_name(api, world):
    serverless = await load(api, serverless=True)
    assert "serverless is not supported" in serverless.json()["message"]
    merged = await api.post(f"{PATH}?replaceMergedAddon=true", json={"model": "poet", "deployment": "one"})
    assert "replaceMergedAddon is not supported" in merged.json()["message"]


async def test_a_public_addon_of_another_account_and_the_base_itself_can_be_loaded(api, world):
    assert (await load(api, "accounts/rival/models/shared")).json()["model"] == "accounts/rival/models/shared"
    assert (await load(api, "base", "plain")).status_code == 200


async def test_a_model_is_loaded_once_on_a_deployment(api, db, world):
    made = (await load(api)).json()
    again = await load(api)
    assert (again.status_code, again.json()["code"]) == (409, 6)
    assert made["name"] in again.json()["message"]
    set_state(db, "UNDEPLOYING")
    assert "is being undeployed" in (await load(api)).json()["message"]


async def test_the_first_deployment_of_a_model_is_its_default_and_another_can_take_over(api, world):
    one = (await load(api)).json()
    two = (await load(api, deployment="two")).json()
    assert (one["default"], two["default"]) == (True, False)
    taken = await api.patch("/v1/" + two["name"], json={"default": True})
    assert taken.json()["default"]
    assert not (await api.get("/v1/" + one["name"])).json()["default"]
    none = await api.patch("/v1/" + two["name"], json={"default": False})
    assert (none.status_code, none.json()["code"]) == (400, 9)


async def test_a_load_may_ask_to_be_the_default(api, world):
    one = (await load(api)).json()
    two = (await load(api, deployment="two", default=True)).json()
    assert two["default"]
    assert not (await api.get("/v1/" + one["name"])).json()["default"]


async def test_a_contributor_takes_nobody_else_s_place_as_the_default(api, db, world):
    one = (await load(api)).json()
    api.headers["Authorization"] = f"Bearer {add_user(db, 'contributor')}"
    asked = await load(api, deployment="two", default=True)
    own = (await load(api, deployment="two")).json()
    for answer in (asked, await api.patch("/v1/" + own["name"], json={"default": True})):
        assert (answer.status_code, answer.json()["code"]) == (403, 7)
        assert one["name"] in answer.json()["message"]
    assert (await api.get("/v1/" + one["name"])).json()["default"]


async def test_a_default_stays_while_the_model_is_deployed_elsewhere(api, db, world):
    one = (await load(api)).json()
    two = (await load(api, deployment="two")).json()
    refused = await api.delete("/v1/" + one["name"])
    assert (refused.status_code, refused.json()["code"]) == (400, 9)
    assert two["name"] in refused.json()["message"]
    assert (await api.delete("/v1/" + two["name"])).json() == {}
    assert (await api.delete("/v1/" + one["name"])).json() == {}
    assert {row.state for row in rows(db)} == {"UNDEPLOYING"}


async def test_a_patch_describes_and_never_moves(api, world):
    made = (await load(api)).json()
    body = {"displayName": "P", "public": True, "model": "poet", "deployment": "one"}
    changed = (await api.patch("/v1/" + made["name"], json=body)).json()
    assert (changed["displayName"], changed["public"]) == ("P", True)
    for field, value in (("model", "base"), ("deployment", "two")):
        answer = await api.patch("/v1/" + made["name"], json={field: value})
        assert f"{field} of a deployed model cannot be changed" in answer.json()["message"]


async def test_an_unload_of_another_version_is_refused(api, db, world):
    name = (await load(api)).json()["name"]
    seen = (await api.get("/v1/" + name)).headers["etag"]
    await api.patch("/v1/" + name, json={"description": "newer"})
    stale = await api.delete("/v1/" + name, headers={"If-Match": seen})
    assert (stale.status_code, rows(db)[0].state) == (412, "DEPLOYING")
    fresh = (await api.get("/v1/" + name)).headers["etag"]
    assert (await api.delete("/v1/" + name, headers={"If-Match": fresh})).status_code == 200


async def test_fields_of_older_clients_are_taken_and_not_returned(api, world):
    old = {"createdBy": "me", "loadBalancerName": "x", "loadBalancerReplicaCapacity": 3}
    made = await load(api, **old, isLoadBalancerStickySession=True)
    assert made.status_code == 200
    assert not {*old, "isLoadBalancerStickySession"} & made.json().keys()
    assert (made.json()["serverless"], made.json()["public"]) == (False, False)


async def test_of_loads_and_unloads_at_once_one_outcome_is_left(api, db, world):
    answers = await asyncio.gather(*(load(api) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    name = next(answer.json()["name"] for answer in answers if answer.status_code == 200)
    gone = await asyncio.gather(*(api.delete("/v1/" + name) for _ in range(3)), api.delete(DEPLOYMENT))
    assert {answer.status_code for answer in gone} <= {200, 400}
    assert [row.state for row in rows(db)] == ["UNDEPLOYING"]


async def test_another_account_sees_nothing(api, world, other_key):
    made = (await load(api)).json()
    api.headers["Authorization"] = f"Bearer {other_key}"
    for answer in (
        await api.get("/v1/" + made["name"]),
        await api.patch("/v1/" + made["name"], json={"displayName": "x"}),
        await api.delete("/v1/" + made["name"]),
        await api.get(PATH),
        await api.post(PATH, json={"model": "x", "deployment": "y"}),
    ):
        assert answer.status_code == 404
    mine = await api.post(
        "/v1/accounts/rival/deployedModels",
        json={"model": "shared", "deployment": "accounts/hearth/deployments/one"},
    )
    assert mine.json()["message"] == "accounts/hearth/deployments/one not found"


async def test_a_models_references_are_its_own_accounts_and_public_ones(api, world, other_key):
    made = (await load(api, "accounts/rival/models/shared")).json()
    path = "/v1/accounts/rival/models/shared"
    shown = (await api.get(path)).json()["deployedModelRefs"]
    assert shown == [
        {
            "name": made["name"],
            "deployment": "accounts/hearth/deployments/one",
            "state": "DEPLOYING",
            "default": True,
            "public": False,
        }
    ]
    theirs = {"Authorization": f"Bearer {other_key}"}
    assert (await api.get(path, headers=theirs)).json()["deployedModelRefs"] == []
    await api.patch("/v1/" + made["name"], json={"public": True})
    assert len((await api.get(path, headers=theirs)).json()["deployedModelRefs"]) == 1


async def test_at_any_moment_a_model_has_one_default(api, db, world):
    made = await asyncio.gather(*(load(api, deployment=d, default=True) for d in ("one", "two")))
    names = [answer.json()["name"] for answer in made]
    switches = [api.patch(f"/v1/{name}", json={"default": True}) for name in names * 4]
    assert {answer.status_code for answer in await asyncio.gather(*switches)} == {200}
    assert sum(row.default for row in rows(db)) == 1
