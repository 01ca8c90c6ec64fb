"""What somebody else changes while a request is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.db import Database, now
from controlplane.resources.tables import DatasetRow, DeploymentRow, DeploymentShapeRow, ModelRow, UserRow
from tests.controlplane.roles import add_user
from tests.locks import is_anybody_waiting

ACCOUNT = "/v1/accounts/hearth"


def nothing(_: Session) -> None:
    pass


async def answer_while(
    db: Database,
    change: Callable[[Session], None],
    request: Coroutine[Any, Any, httpx.Response],
    then: Callable[[Session], None] = nothing,
) -> httpx.Response:
    """The answer to a request that comes before a change is committed, and that waits for it if it can.

    `then` is the rest of the change, while the request waits.
    """
    with db.session() as session:
        change(session)
        session.flush()
        asked = asyncio.create_task(request)
        for _ in iter(lambda: asked.done() or is_anybody_waiting(db), True):
            await asyncio.sleep(0.01)
        then(session)
    return await asked


def take_back(model_id: str) -> Callable[[Session], None]:
    """Make a model of the other account private, as its own account does."""

    def change(session: Session) -> None:
        query = select(ModelRow).where(ModelRow.account_id == "rival", ModelRow.id == model_id)
        session.scalars(query.with_for_update()).one().public = False

    return change


@pytest.fixture
def theirs(db: Database, admin_key: str, add_model: Callable[..., ModelRow]) -> ModelRow:
    """A public base model of the account `rival`."""
    return add_model("theirs", "rival", public=True)


@pytest.fixture
def their_addon(theirs: ModelRow, add_model: Callable[..., ModelRow]) -> ModelRow:
    facts = {"r": 8, "target_modules": ["q_proj"]}
    return add_model("addon", "rival", "HF_PEFT_ADDON", public=True, facts=facts, base_model_uid=theirs.uid)


@pytest.fixture
def dataset(db: Database, admin_key: str) -> DatasetRow:
    with db.session() as session:
        row = DatasetRow(account_id="hearth", id="rows", state="READY", format="CHAT", example_count=9)
        session.add(row)
        return row


async def test_no_deployment_is_made_of_a_model_that_is_being_taken_back(api, db, theirs):
    request = api.post(f"{ACCOUNT}/deployments", json={"baseModel": theirs.name})
    answer = await answer_while(db, take_back("theirs"), request)
    assert answer.status_code == 404, answer.text
    assert (await api.get(f"{ACCOUNT}/deployments")).json()["deployments"] == []


async def test_an_addon_that_is_being_taken_back_is_not_loaded(api, db, theirs, their_addon):
    wanted = {"baseModel": theirs.name, "enableAddons": True}
    deployment = (await api.post(f"{ACCOUNT}/deployments", json=wanted)).json()["name"]
    request = api.post(
        f"{ACCOUNT}/deployedModels", json={"model": their_addon.name, "deployment": deployment}
    )
    answer = await answer_while(db, take_back("addon"), request)
    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("kind", ["fineTuningJobs", "supervisedFineTuningJobs"])
async def test_no_job_starts_from_a_model_that_is_being_taken_back(api, db, theirs, dataset, kind):
    older = {"conversation": {}} if kind == "fineTuningJobs" else {}
    job = {"baseModel": theirs.name, "dataset": dataset.name, **older}
    answer = await answer_while(db, take_back("theirs"), api.post(f"{ACCOUNT}/{kind}", json=job))
    assert answer.status_code == 404, answer.text


async def test_no_job_goes_on_from_an_addon_whose_base_is_being_taken_back(api, db, their_addon, dataset):
    job = {"warmStartFrom": their_addon.name, "dataset": dataset.name}
    request = api.post(f"{ACCOUNT}/supervisedFineTuningJobs", json=job)
    answer = await answer_while(db, take_back("theirs"), request)
    assert answer.status_code == 400, answer.text
    assert "not open to you" in answer.json()["message"]


async def test_a_model_is_deleted_after_its_deleted_deployment_was_let_go(api, db, base):
    deleted = {"state": "DELETED", "delete_time": now(), "purge_time": now() + timedelta(days=7)}
    with db.session() as session:
        session.add(DeploymentRow(account_id="hearth", id="gone", base_model_uid=base.uid, **deleted))

    def undelete(session: Session) -> None:
        session.scalars(select(DeploymentRow).with_for_update()).one()

    def and_then_its_model(session: Session) -> None:
        session.scalars(select(ModelRow).with_for_update(key_share=True)).one()

    request = api.delete(f"{ACCOUNT}/models/base")
    answer = await answer_while(db, undelete, request, and_then_its_model)
    assert answer.status_code == 200, answer.text


async def test_a_model_is_deleted_after_a_change_of_its_shape(api, db, base):
    made = await api.post(f"{ACCOUNT}/deploymentShapes?deploymentShapeId=small", json={"baseModel": "base"})
    assert made.status_code == 200, made.text

    def change(session: Session) -> None:
        session.scalars(select(DeploymentShapeRow).with_for_update()).one()

    def and_then_add_a_version(session: Session) -> None:
        session.scalars(select(ModelRow).with_for_update(read=True, key_share=True)).one()

    request = api.delete(f"{ACCOUNT}/models/base")
    answer = await answer_while(db, change, request, and_then_add_a_version)
    assert answer.status_code == 200, answer.text
    assert (await api.get(f"{ACCOUNT}/deploymentShapes/small")).status_code == 200


async def test_a_key_of_a_user_who_is_being_deleted_is_refused(api, db):
    add_user(db, "user", user_id="leaving")

    def leave(session: Session) -> None:
        session.execute(delete(UserRow).where(UserRow.id == "leaving"))

    request = api.post(f"{ACCOUNT}/users/leaving/apiKeys", json={})
    answer = await answer_while(db, leave, request)
    assert answer.status_code in (404, 409), answer.text
