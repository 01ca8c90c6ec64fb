"""Models through the published package: every method, both clients, and what goes wrong."""

from __future__ import annotations

import fireworks
import httpx
import pytest
from fireworks import AsyncFireworks, Fireworks

from controlplane.db import Database
from controlplane.resources.tables import ModelRow
from tests.controlplane.uploads import MODEL_FILES

pytestmark = pytest.mark.usefixtures("uploads_worker")

SIZES = {name: str(len(content)) for name, content in MODEL_FILES.items()}


def put_all(urls: dict[str, str] | None) -> None:
    for name, url in (urls or {}).items():
        httpx.put(url, content=MODEL_FILES[name]).raise_for_status()


def add_models(db: Database, count: int) -> None:
    """Rows of models that are READY; those with an odd number are public."""
    with db.session() as session:
        session.add_all(
            ModelRow(
                account_id="hearth",
                id=f"m-{number:03}",
                display_name=f"Model {number}",
                kind="HF_BASE_MODEL",
                state="READY",
                public=bool(number % 2),
            )
            for number in range(count)
        )


def test_a_models_life(client: Fireworks) -> None:
    models = client.models
    made = models.create(
        model_id="ember", model={"kind": "HF_BASE_MODEL", "display_name": "Ember", "public": False}
    )
    assert (made.name, made.state, made.kind) == (
        "accounts/hearth/models/ember",
        "UPLOADING",
        "HF_BASE_MODEL",
    )
    upload = models.get_upload_endpoint("ember", filename_to_size=SIZES)
    assert upload.filename_to_unsigned_uris is not None
    assert upload.filename_to_unsigned_uris.keys() == MODEL_FILES.keys()
    put_all(upload.filename_to_signed_urls)
    assert models.validate_upload("ember").warnings == []
    found = models.get("ember")
    assert (found.state, found.supports_lora, found.deployed_model_refs) == ("READY", True, [])
    assert found.supported_precisions
    assert models.prepare("ember", precision=found.supported_precisions[0]) == {}
    changed = models.update("ember", description="The quickstart's model", public=True)
    assert (changed.description, changed.display_name, changed.public) == (
        "The quickstart's model",
        "Ember",
        True,
    )
    urls = models.get_download_endpoint("ember").filename_to_signed_urls
    assert urls is not None
    assert httpx.get(urls["config.json"]).content == MODEL_FILES["config.json"]
    only = models.get("ember", read_mask="name,state")
    assert (only.state, only.kind) == ("READY", None)
    assert [model.name for model in models.list()] == [made.name]
    assert models.delete("ember") == {}
    assert list(models.list()) == []


async def test_a_models_life_without_blocking(async_client: AsyncFireworks) -> None:
    models = async_client.models
    made = await models.create(model_id="ember", model={"kind": "HF_BASE_MODEL"})
    upload = await models.get_upload_endpoint("ember", filename_to_size=SIZES)
    put_all(upload.filename_to_signed_urls)
    assert (await models.validate_upload("ember")).warnings == []
    found = await models.get("ember")
    assert found.supported_precisions
    assert await models.prepare("ember", precision=found.supported_precisions[0]) == {}
    assert (await models.update("ember", display_name="Ember")).display_name == "Ember"
    urls = (await models.get_download_endpoint("ember")).filename_to_signed_urls
    assert urls is not None
    assert urls.keys() == MODEL_FILES.keys()
    assert [model.name async for model in models.list()] == [made.name]
    assert await models.delete("ember") == {}
    with pytest.raises(fireworks.NotFoundError):
        await models.get("ember")


def test_five_hundred_models_come_page_by_page(client: Fireworks, db: Database) -> None:
    add_models(db, 500)
    first = client.models.list(page_size=200)
    assert len(first.models) == 200
    assert first.has_next_page()
    names = [model.name for model in client.models.list(page_size=200)]
    assert names == [f"accounts/hearth/models/m-{number:03}" for number in range(500)]
    assert len(client.models.list().models) == 50


async def test_five_hundred_models_come_page_by_page_without_blocking(
    async_client: AsyncFireworks, db: Database
) -> None:
    add_models(db, 500)
    names = [model.name async for model in async_client.models.list(page_size=150, order_by="name desc")]
    assert names == [f"accounts/hearth/models/m-{number:03}" for number in reversed(range(500))]


def test_models_are_filtered_and_ordered(client: Fireworks, db: Database) -> None:
    add_models(db, 60)
    chosen = client.models.list(
        filter='public = true AND display_name = "Model 1*"', order_by="display_name desc", page_size=4
    )
    wanted = sorted((f"Model {n}" for n in range(60) if n % 2 and str(n).startswith("1")), reverse=True)
    assert [model.display_name for model in chosen] == wanted
    with pytest.raises(fireworks.BadRequestError, match="colour"):
        client.models.list(filter='colour = "red"')


def test_every_mistake_has_its_own_exception(client: Fireworks, base_url: str) -> None:
    client.models.create(model_id="ember", model={"kind": "HF_BASE_MODEL"})
    with pytest.raises(fireworks.ConflictError, match="already exists"):
        client.models.create(model_id="ember", model={"kind": "HF_BASE_MODEL"})
    with pytest.raises(fireworks.BadRequestError, match="modelId"):
        client.models.create(model_id="No Good", model={"kind": "HF_BASE_MODEL"})
    with pytest.raises(fireworks.BadRequestError, match="kind of a model cannot be changed"):
        client.models.update("ember", kind="HF_PEFT_ADDON")
    with pytest.raises(fireworks.BadRequestError, match="trustRemoteCode"):
        client.models.validate_upload("ember", trust_remote_code=True)
    with pytest.raises(fireworks.BadRequestError, match=r"evil\.\.name"):
        client.models.get_upload_endpoint("ember", filename_to_size={"evil..name": "1"})
    with pytest.raises(fireworks.NotFoundError, match="accounts/hearth/models/nothing not found"):
        client.models.get("nothing")
    stranger = client.with_options(api_key="fw_not-a-key")
    with pytest.raises(fireworks.AuthenticationError):
        stranger.models.list()


def test_a_model_that_is_not_prepared_is_said_so_once(client: Fireworks, db: Database) -> None:
    add_models(db, 1)
    patient = client.with_options(max_retries=2)
    with pytest.raises(fireworks.BadRequestError) as caught:
        patient.models.prepare("m-000", precision="FP8")
    assert caught.value.status_code == 400
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


def test_another_accounts_models_are_not_there_unless_public(
    client: Fireworks, rival_client: Fireworks, db: Database
) -> None:
    add_models(db, 2)
    seen = rival_client.models.list(account_id="hearth")
    assert [model.name for model in seen] == ["accounts/hearth/models/m-001"]
    with pytest.raises(fireworks.NotFoundError):
        rival_client.models.get("m-000", account_id="hearth")
    with pytest.raises(fireworks.NotFoundError):
        rival_client.models.delete("m-001", account_id="hearth")


def test_a_role_that_may_only_look_is_refused(client: Fireworks, viewer_client: Fireworks) -> None:
    client.models.create(model_id="ember", model={"kind": "HF_BASE_MODEL"})
    assert viewer_client.models.get("ember").state == "UPLOADING"
    with pytest.raises(fireworks.PermissionDeniedError):
        viewer_client.models.create(model_id="mine", model={"kind": "HF_BASE_MODEL"})
    with pytest.raises(fireworks.PermissionDeniedError):
        viewer_client.models.delete("ember")
