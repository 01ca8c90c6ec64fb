"""Deleting and undeleting deployments, who wins when several do it, and what is known of their past."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update

from controlplane.bootstrap import create_key, ensure_user
from controlplane.db import now
from controlplane.resources.tables import (
    AuditLogRow,
    DeployedModelRow,
    DeploymentRow,
    LedgerRow,
    ModelRow,
    ReplicaRow,
)

PATH = "/v1/accounts/hearth/deployments"
NAME = "accounts/hearth/deployments/d"
pytestmark = pytest.mark.usefixtures("base")


@pytest.fixture
def ask(db):
    """Puts requests that were answered into the ledger."""

    def add(count=1, ago=timedelta(0), account_id="hearth", **values):
        fields = {"http_status": 200, "product": "inference", "owner_id": "hearth", **values}
        with db.session() as session:
            for _ in range(count):
                session.add(
                    LedgerRow(
                        account_id=account_id,
                        user_id="u",
                        key_id="k",
                        model="accounts/hearth/models/base",
                        deployment=NAME,
                        endpoint="chat",
                        create_time=now() - ago,
                        end_time=None,
                        accelerator_type=None,
                        accelerator_count=None,
                        reserved_count=None,
                        trained_tokens=None,
                        **fields,
                    )
                )

    return add


async def create(api, deployment_id="d", **fields):
    return await api.post(f"{PATH}?deploymentId={deployment_id}", json={"baseModel": "base", **fields})


async def undelete(api, headers=None):
    return await api.post(f"{PATH}/d:undelete", json={}, headers=headers)


def change(db, **values):
    with db.session() as session:
        session.execute(update(DeploymentRow).values(**values))


def finish_delete(db, **values):
    """What a worker does once the engines of a deployment have stopped."""
    with db.session() as session:
        session.execute(delete(DeployedModelRow))
    kept = {"state": "DELETED", "delete_time": now(), "purge_time": now() + timedelta(days=7)}
    change(db, next_reconcile_at=None, **kept | values)


def rows(db, table=DeploymentRow):
    with db.session() as session:
        return list(session.scalars(select(table)))


def refusal(answer):
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def test_an_undeleted_deployment_comes_back_as_it_was_wanted(api, db):
    made = (await create(api, minReplicaCount=2, maxReplicaCount=5, displayName="Mine")).json()
    await api.patch(f"{PATH}/d:scale", json={"replicaCount": 4})
    await api.delete(f"{PATH}/d")
    finish_delete(db, consecutive_failures=3, status_code="INTERNAL")
    assert (await api.get(f"{PATH}/d")).json()["desiredReplicaCount"] == 0
    back = (await undelete(api)).json()
    assert (back["state"], back["status"]["message"]) == ("CREATING", "waiting for a worker to start it")
    assert (back["desiredReplicaCount"], back["displayName"]) == (4, "Mine")
    assert back["createTime"] == made["createTime"]
    assert not {"deleteTime", "purgeTime"} & back.keys()
    (row,), (deployed,) = rows(db), rows(db, DeployedModelRow)
    assert (row.consecutive_failures, row.next_reconcile_at is not None) == (0, True)
    assert (deployed.deployment_uid, deployed.state, deployed.default) == (row.uid, "DEPLOYING", True)
    assert (await api.get(PATH)).json()["totalSize"] == 1
    assert [line.resource for line in rows(db, AuditLogRow) if line.action == "UndeleteDeployment"] == [NAME]


async def test_only_a_deleted_deployment_can_be_undeleted(api, db, other_key):
    assert refusal(await undelete(api)) == (404, 5, f"{NAME} not found")
    assert (await api.post(f"{PATH}/d:undelete")).status_code == 404
    await create(api)
    assert refusal(await undelete(api)) == (400, 9, f"{NAME} is not deleted: it is CREATING")
    await api.delete(f"{PATH}/d")
    assert refusal(await undelete(api)) == (400, 9, f"{NAME} is not deleted: it is DELETING")
    finish_delete(db)
    assert (await undelete(api, {"Authorization": f"Bearer {other_key}"})).status_code == 404
    change(db, purge_time=now() - timedelta(seconds=1))
    assert refusal(await undelete(api)) == (404, 5, f"{NAME} not found")


async def test_a_name_that_is_taken_meanwhile_keeps_the_deleted_one_away(api, db):
    await create(api)
    finish_delete(db)
    await create(api)
    status, code, message = refusal(await undelete(api))
    assert (status, code) == (409, 6)
    assert "another deployment has that name meanwhile" in message
    assert sorted(row.state for row in rows(db)) == ["CREATING", "DELETED"]


async def test_what_could_not_be_created_now_is_not_undeleted(api, db, base):
    await create(api)
    finish_delete(db)
    with db.session() as session:
        session.get(ModelRow, base.uid).state = "UPLOADING"
    assert "is UPLOADING, not READY" in refusal(await undelete(api))[2]
    assert [row.state for row in rows(db)] == ["DELETED"]


async def test_of_many_undeletes_one_wins(api, db):
    await create(api)
    finish_delete(db)
    answers = await asyncio.gather(*(undelete(api) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert (len(rows(db)), len(rows(db, DeployedModelRow))) == (1, 1)


async def test_of_a_create_and_an_undelete_of_one_name_one_wins(api, db):
    await create(api)
    finish_delete(db)
    answers = await asyncio.gather(*(call(api) for call in (create, undelete) * 3))
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {answer.status_code for answer in answers} <= {200, 400, 409}
    assert sum(row.state == "CREATING" for row in rows(db)) == 1
    assert len(rows(db, DeployedModelRow)) == 1


async def test_updates_and_deletes_that_arrive_together_leave_one_outcome(api, db):
    await create(api, maxReplicaCount=8)
    updates = [api.patch(f"{PATH}/d", json={"minReplicaCount": count}) for count in range(1, 5)]
    deletes = [api.delete(f"{PATH}/d") for _ in range(2)]
    answers = await asyncio.gather(*updates, *deletes)
    assert [answer.status_code for answer in answers[4:]] == [200, 200]
    assert {answer.status_code for answer in answers[:4]} <= {200, 400}
    (row,) = rows(db)
    assert row.state == "DELETING"
    assert [model.state for model in rows(db, DeployedModelRow)] == ["UNDEPLOYING"]


async def test_a_create_of_a_taken_id_changes_nothing(api, db):
    made = (await create(api, displayName="First")).json()
    again = await create(api, displayName="Second", minReplicaCount=3)
    assert refusal(again) == (409, 6, f"{NAME} already exists")
    assert (await api.get(f"{PATH}/d")).json() == made


async def test_a_delete_of_another_version_is_refused(api, db):
    await create(api)
    seen = (await api.get(f"{PATH}/d")).headers["etag"]
    await api.patch(f"{PATH}/d", json={"displayName": "Changed"})
    stale = await api.delete(f"{PATH}/d", headers={"If-Match": seen})
    assert (stale.status_code, rows(db)[0].state) == (412, "CREATING")
    fresh = (await api.get(f"{PATH}/d")).headers["etag"]
    assert (await api.delete(f"{PATH}/d", headers={"If-Match": fresh})).status_code == 200


async def test_inference_within_the_last_hour_keeps_a_deployment(api, db, ask):
    await create(api)
    change(db, create_time=now() - timedelta(days=1))
    ask(ago=timedelta(minutes=61))
    ask(product="deployment")
    ask(account_id="rival", owner_id="hearth")
    status, code, message = refusal(await api.delete(f"{PATH}/d"))
    assert (status, code) == (400, 9)
    assert f"cannot delete {NAME}: it is in use, with 1 request within the last hour" in message
    assert (await api.delete(f"{PATH}/d?ignoreChecks=true")).status_code == 200


async def test_an_earlier_deployment_of_the_name_does_not_count_as_use(api, ask):
    ask(count=2, ago=timedelta(minutes=1))
    await create(api)
    assert (await api.get(f"{PATH}/d:metrics")).json()["metrics"]["REQUESTS_TOTAL"] == 0
    assert (await api.delete(f"{PATH}/d")).status_code == 200


async def test_metrics_are_what_the_ledger_tells_of_the_range(api, db, ask):
    await create(api)
    change(db, create_time=now() - timedelta(days=30))
    with db.session() as session:
        session.add(ReplicaRow(deployment_uid=rows(db)[0].uid, state="READY"))
    quiet = (await api.get(f"{PATH}/d:metrics")).json()["metrics"]
    assert quiet == {
        "REPLICA_COUNT": 1,
        "REQUESTS_TOTAL": 0,
        "REQUESTS_PER_SECOND": 0,
        "TOKENS_PER_SECOND": 0,
        "TOKENS_GENERATED_PER_SECOND": 0,
    }
    used = {"prompt_tokens": 30, "cached_prompt_tokens": 15, "completion_tokens": 10, "duration_ms": 500}
    ask(3, **used)
    ask(1, http_status=503, duration_ms=2500)
    ask(4, timedelta(hours=2), **used)
    found = (await api.get(f"{PATH}/d:metrics?timeRange=3600s")).json()["metrics"]
    assert found == {
        "REPLICA_COUNT": 1,
        "REQUESTS_TOTAL": 4,
        "REQUESTS_PER_SECOND": pytest.approx(4 / 3600),
        "TOKENS_PER_SECOND": pytest.approx(120 / 3600),
        "TOKENS_GENERATED_PER_SECOND": pytest.approx(30 / 3600),
        "REQUESTS_ERROR_RATE": 0.25,
        "TOKENS_PROMPT_PER_REQUEST": 22.5,
        "TOKENS_GENERATED_PER_REQUEST": 7.5,
        "LATENCY": 1.0,
        "PROMPT_CACHE_HIT_RATE": 0.5,
    }
    assert (await api.get(f"{PATH}/d:metrics?timeRange=1d")).json()["metrics"]["REQUESTS_TOTAL"] == 8
    for bad in ("1", "0s", "-1h", "32d", "1 week"):
        answer = await api.get(f"{PATH}/d:metrics", params={"timeRange": bad})
        assert (answer.status_code, "must be a length of time" in answer.json()["message"]) == (400, True)


async def test_the_termination_message_is_that_of_the_replica_that_failed_last(api, db):
    path = f"{PATH}/d/terminationMessage"
    assert (await api.get(path)).status_code == 404
    await create(api)
    assert (await api.get(path)).json() == {"message": ""}
    with db.session() as session:
        uid = session.scalars(select(DeploymentRow.uid)).one()
        for minutes, fields in enumerate(
            (
                {"state": "READY"},
                {"state": "FAILED", "reason": "OUT_OF_MEMORY", "message": "out of memory"},
                {"state": "FAILED", "reason": "NO_TOKENIZER", "message": "no such tokenizer"},
            )
        ):
            moment = now() - timedelta(minutes=minutes)
            session.add(ReplicaRow(deployment_uid=uid, state_time=moment, **fields))
    assert (await api.get(path)).json() == {"message": "out of memory"}


async def test_a_contributor_changes_only_deployments_and_shapes_of_its_own(api, db):
    shape = {"baseModel": "base"}
    shapes = "/v1/accounts/hearth/deploymentShapes"
    await create(api)
    await api.post(f"{shapes}?deploymentShapeId=theirs", json=shape)
    (version,) = (await api.get(f"{shapes}/theirs/versions")).json()["deploymentShapeVersions"]
    with db.session() as session:
        user = ensure_user(session, "hearth", "carl", "carl@x.org", "contributor")
        api.headers["Authorization"] = f"Bearer {create_key(session, user, 'test')}"
    assert (await api.post(f"{shapes}?deploymentShapeId=mine", json=shape)).status_code == 200
    assert (await api.patch(f"{shapes}/mine", json={"description": "x"})).status_code == 200
    assert (await api.delete(f"{shapes}/mine")).status_code == 200
    for answer in (
        await api.patch(f"{shapes}/theirs", json={"description": "x"}),
        await api.patch(f"/v1/{version['name']}", json={"validated": True}),
        await api.delete(f"{shapes}/theirs"),
        await api.delete(f"{PATH}/d"),
    ):
        assert refusal(answer)[:2] == (403, 7)
    finish_delete(db)
    assert refusal(await undelete(api))[:2] == (403, 7)


async def test_a_ledger_is_not_deleted(api):
    assert (await api.delete(f"{PATH}/d/ledger")).status_code == 404
    await create(api)
    status, code, message = refusal(await api.delete(f"{PATH}/d/ledger"))
    assert (status, code) == (400, 12)
    assert "the ledger of accounts/hearth/deployments/d cannot be deleted" in message
    assert (await api.get(f"{PATH}/d/ledger")).status_code == 200


async def test_shards_are_refused_by_name(api):
    assert (await api.get(f"{PATH}/d/shards")).status_code == 404
    await create(api)
    status, code, message = refusal(await api.get(f"{PATH}/d/shards"))
    assert (status, code) == (400, 12)
    assert "a replica is one engine" in message


async def test_what_is_said_of_the_size_check_is_kept(api, db):
    made = (await create(api, disableDeploymentSizeValidation=True)).json()
    assert made["disableDeploymentSizeValidation"]
    change(db, state="READY", next_reconcile_at=None)
    changed = await api.patch(f"{PATH}/d", json={"disableDeploymentSizeValidation": False})
    assert (changed.json()["disableDeploymentSizeValidation"], changed.json()["state"]) == (False, "READY")
    assert rows(db)[0].next_reconcile_at is None


async def test_a_model_that_is_deleted_takes_deleted_deployments_along(api, db):
    await create(api)
    finish_delete(db, delete_time=func.now())
    assert (await api.delete("/v1/accounts/hearth/models/base")).status_code == 200
    assert (await undelete(api)).status_code == 404
