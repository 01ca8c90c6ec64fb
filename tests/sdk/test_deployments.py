"""Deployments, their shapes and what is loaded on them, through the published package."""

from __future__ import annotations

from datetime import timedelta

import fireworks
import httpx
import pytest
from sqlalchemy import delete, update

from controlplane.db import now
from controlplane.resources.tables import DeployedModelRow, DeploymentRow
from tests.controlplane.conftest import add_model, base

__all__ = ["add_model", "base"]

BASE = "accounts/hearth/models/base"
SHAPES = "/v1/accounts/hearth/deploymentShapes"


@pytest.fixture
def shape(base_url, admin_key, base):
    """A validated version of a shape for the base model. The package only reads shapes."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    with httpx.Client(base_url=base_url, headers=headers) as rest:
        body = {"baseModel": BASE, "precision": "BF16", "enableAddons": True, "presetType": "FAST"}
        rest.post(f"{SHAPES}?deploymentShapeId=fast", json=body).raise_for_status()
        (version,) = rest.get(f"{SHAPES}/fast/versions").json()["deploymentShapeVersions"]
        rest.patch(f"/v1/{version['name']}", json={"validated": True}).raise_for_status()
        return version["name"]


def finish_delete(db):
    """What a worker does once the engines have stopped."""
    with db.session() as session:
        session.execute(delete(DeployedModelRow))
        session.execute(
            update(DeploymentRow).values(
                state="DELETED", delete_time=now(), purge_time=now() + timedelta(days=7)
            )
        )


def test_shapes_and_their_versions_are_read(client, shape):
    (found,) = client.deployment_shapes.list(target_model=BASE)
    assert (found.base_model, found.preset_type, found.parameter_count) == (BASE, "FAST", "7")
    assert client.deployment_shapes.get("fast").name == found.name
    (version,) = client.deployment_shape_versions.list("fast")
    assert (version.name, version.snapshot, version.latest_validated) == (shape, found, True)
    fetched = client.deployment_shape_versions.get(shape.rsplit("/", 1)[1], deployment_shape_id="fast")
    assert fetched == version


def test_a_shape_that_matches_makes_a_deployment(client, shape, add_model, base):
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid, facts={"r": 8})
    for model in (BASE, "accounts/hearth/models/poet"):
        match = client.deployment_shape_versions.match_for_model(model, enable_addons=True)
        assert [version.name for version in match.deployment_shape_versions] == [shape]
    chosen = match.deployment_shape_versions[0].snapshot
    made = client.deployments.create(base_model=BASE, deployment_shape=chosen.name, deployment_id="d")
    assert (made.deployment_shape, made.precision, made.enable_addons) == (shape, "BF16", True)
    with pytest.raises(fireworks.BadRequestError, match="exclude each other"):
        client.deployments.create(base_model=BASE, deployment_shape="default", accept_shapeless_risk=True)


def test_a_deployments_life(client, db, base):
    made = client.deployments.create(base_model=BASE, deployment_id="d", max_replica_count=3)
    assert (made.state, made.replica_stats.ready_replica_count) == ("CREATING", 0)
    assert client.deployments.create(base_model=BASE, validate_only=True).base_model == BASE
    assert client.deployments.get("d").name == made.name
    assert [found.name for found in client.deployments.list()] == [made.name]
    changed = client.deployments.update("d", base_model=BASE, display_name="Mine")
    assert changed.display_name == "Mine"
    client.deployments.scale("d", replica_count=2)
    client.deployments.delete("d")
    finish_delete(db)
    assert list(client.deployments.list()) == []
    assert [found.state for found in client.deployments.list(show_deleted=True)] == ["DELETED"]
    back = client.deployments.undelete("d", body={})
    assert (back.state, back.desired_replica_count) == ("CREATING", 2)
    client.deployments.delete("d", hard=True, ignore_checks=True)
    with pytest.raises(fireworks.NotFoundError):
        client.deployments.get("absent")


def test_an_addon_is_loaded_and_unloaded(client, add_model, base):
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid, facts={"r": 8})
    client.deployments.create(base_model=BASE, deployment_id="d", enable_addons=True)
    loaded = client.lora.load(model="accounts/hearth/models/poet", deployment="accounts/hearth/deployments/d")
    assert (loaded.state, loaded.default) == ("DEPLOYING", True)
    lora_id = loaded.name.rsplit("/", 1)[1]
    assert client.lora.get(lora_id).name == loaded.name
    assert client.lora.update(lora_id, display_name="Poet", public=True).public
    assert loaded.name in [found.name for found in client.lora.list()]
    client.lora.unload(lora_id)
    assert client.lora.get(lora_id).state == "UNDEPLOYING"


async def test_async(async_client, db, shape, add_model, base):
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid, facts={"r": 8})
    assert [found.name async for found in async_client.deployment_shapes.list()]
    assert (await async_client.deployment_shapes.get("fast")).base_model == BASE
    assert [version.name async for version in async_client.deployment_shape_versions.list("fast")] == [shape]
    match = await async_client.deployment_shape_versions.match_for_model(BASE)
    assert match.total_size == 1
    made = await async_client.deployments.create(
        base_model=BASE, deployment_shape="default", deployment_id="d", min_replica_count=1
    )
    assert made.deployment_shape == shape
    changed = await async_client.deployments.update("d", base_model=BASE, max_replica_count=4)
    assert changed.max_replica_count == 4
    await async_client.deployments.scale("d", replica_count=3)
    loaded = await async_client.lora.load(model="poet", deployment="d")
    lora_id = loaded.name.rsplit("/", 1)[1]
    await async_client.lora.update(lora_id, description="It rhymes")
    assert (await async_client.lora.get(lora_id)).description == "It rhymes"
    assert loaded.name in [found.name async for found in async_client.lora.list()]
    await async_client.lora.unload(lora_id)
    await async_client.deployments.delete("d", ignore_checks=True)
    finish_delete(db)
    back = await async_client.deployments.undelete("d", body={})
    assert (back.desired_replica_count, back.deployment_shape) == (3, shape)
    assert [found.state async for found in async_client.deployments.list()] == ["CREATING"]
