"""How many addons stay on the device: of shapes, and of the deployments made with them, over HTTP."""

import pytest
from sqlalchemy import select

from controlplane.resources.deployments.schemas import MOST_ADDON_SLOTS
from controlplane.resources.tables import DeploymentRow
from tests.controlplane.test_deployment_shapes import create as create_shape
from tests.controlplane.test_deployment_shapes import make_validated, match, newest
from workers.runtimes.base import ReplicaSpec

PATH = "/v1/accounts/hearth/deployments"
SHAPES = "/v1/accounts/hearth/deploymentShapes"
pytestmark = pytest.mark.usefixtures("base")


async def create(api, query="", **fields):
    return await api.post(f"{PATH}?deploymentId=d{query}", json={"baseModel": "base", **fields})


async def change(api, query="", **fields):
    return await api.patch(f"{PATH}/d{query}", json=fields)


async def refused(answer):
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, 3), body
    return body["message"]


def slots(deployment):
    return deployment["maxPeftBatchSize"], deployment["numPeftDeviceCached"]


def generation(db):
    with db.session() as session:
        return session.scalars(select(DeploymentRow)).one().generation


async def test_a_deployment_tells_how_many_addons_stay_on_the_device(api):
    assert slots((await create(api, "&validateOnly=true")).json()) == (0, 0)
    assert slots((await create(api, enableAddons=True)).json()) == (0, 4)
    ignored = await change(api, numPeftDeviceCached=9)
    assert (ignored.status_code, slots(ignored.json())) == (200, (0, 4))


async def test_a_deployment_has_as_many_as_its_shape_says(api):
    await make_validated(api, enableAddons=True, numLoraDeviceCached=8)
    assert slots((await create(api, deploymentShape="fast")).json()) == (8, 8)
    shape = {"filter": "num_lora_device_cached = 8", "orderBy": "num_lora_device_cached desc"}
    (listed,) = (await api.get(SHAPES, params=shape)).json()["deploymentShapes"]
    assert listed["numLoraDeviceCached"] == 8
    public = {"filter": "snapshot.num_lora_device_cached > 4"}
    versions = await api.get(f"{SHAPES}/fast/versions", params=public)
    assert len(versions.json()["deploymentShapeVersions"]) == 1
    for chosen in ("num_peft_device_cached = 8", "max_peft_batch_size > 4"):
        found = await api.get(PATH, params={"filter": chosen, "orderBy": "num_peft_device_cached"})
        assert len(found.json()["deployments"]) == 1
    assert (await api.get(PATH, params={"filter": "num_peft_device_cached < 8"})).json()["deployments"] == []


async def test_a_request_and_its_shape_do_not_contradict_each_other(api):
    version = await make_validated(api, enableAddons=True, numLoraDeviceCached=8)
    asked = {"deploymentShape": "fast", "maxPeftBatchSize": 2}
    assert f"maxPeftBatchSize is 2, and 8 in {version['name']}" in await refused(await create(api, **asked))
    assert await match(api, enableAddons=True, maxPeftBatchSize=2) == []
    assert slots((await create(api, "&skipShapeValidation=true", **asked)).json()) == (2, 2)
    await make_validated(api, "open", enableAddons=True)
    assert await match(api, enableAddons=True, maxPeftBatchSize=2) == ["open"]


async def test_a_change_asks_for_new_engines(api, db):
    made = (await create(api, enableAddons=True, maxPeftBatchSize=8)).json()
    assert slots(made) == (8, 8)
    assert (await change(api, **made)).status_code == 200
    assert generation(db) == 1
    assert slots((await change(api, maxPeftBatchSize=0)).json()) == (0, 4)
    assert generation(db) == 2


async def test_what_no_addons_need_is_refused_by_name(api):
    words = "needs enableAddons: it says how many addons stay on the device at a time"
    assert f"maxPeftBatchSize 8 {words}" in await refused(await create(api, maxPeftBatchSize=8))
    shape = await create_shape(api, numLoraDeviceCached=2)
    assert f"numLoraDeviceCached 2 {words}" in await refused(shape)
    many = await create(api, enableAddons=True, maxPeftBatchSize=MOST_ADDON_SLOTS + 1)
    assert "maxPeftBatchSize: Input should be less than or equal to 32" in await refused(many)
    await create(api, enableAddons=True, maxPeftBatchSize=8)
    assert f"maxPeftBatchSize 8 {words}" in await refused(await change(api, enableAddons=False))
    without = await change(api, enableAddons=False, maxPeftBatchSize=0)
    assert slots(without.json()) == (0, 0)


async def test_the_room_for_addons_goes_with_them_when_the_shape_changes(api):
    await make_validated(api, "lora", enableAddons=True, numLoraDeviceCached=8)
    await make_validated(api, "plain")
    await make_validated(api, "open", enableAddons=True)
    await create(api, deploymentShape="lora")
    plain = (await change(api, deploymentShape="plain")).json()
    assert (plain["enableAddons"], slots(plain)) == (False, (0, 0))
    assert slots((await change(api, deploymentShape="lora")).json()) == (8, 8)
    assert slots((await change(api, deploymentShape="open")).json()) == (8, 8), "what it leaves open stays"


async def test_a_change_of_the_shape_is_a_new_version(api):
    await create_shape(api, enableAddons=True)
    assert (await newest(api))["snapshot"]["numLoraDeviceCached"] == 0
    await api.patch(f"{SHAPES}/fast", json={"numLoraDeviceCached": 3})
    assert (await newest(api))["snapshot"]["numLoraDeviceCached"] == 3


def test_an_engine_holds_as_many_in_memory_as_may_be_asked_for():
    assert ReplicaSpec.max_cpu_loras == MOST_ADDON_SLOTS
