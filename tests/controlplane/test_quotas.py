"""Quotas: what may be set, what is refused, and who wins the last place."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from controlplane.db import now
from controlplane.resources.ledger.entries import month_of
from controlplane.resources.ledger.tables import SpendRow
from controlplane.resources.quotas import service as quotas
from controlplane.resources.quotas.catalog import DEFAULTS, accelerator_quota
from controlplane.resources.quotas.updates import set_max_value
from controlplane.resources.reservations.service import WantedReservation, create_reservation
from controlplane.resources.tables import AuditLogRow, DeploymentRow, ModelRow, QuotaRow

P = "/v1/accounts/hearth"
H100 = "NVIDIA_H100_80GB"


async def set_quota(api, quota_id, value):
    answer = await api.patch(f"{P}/quotas/{quota_id}", json={"value": value})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def create_model(api, model_id):
    body = {"modelId": model_id, "model": {"kind": "HF_BASE_MODEL"}}
    return await api.post(f"{P}/models", json=body)


async def create_dataset(api, dataset_id):
    return await api.post(f"{P}/datasets", json={"datasetId": dataset_id, "dataset": {}})


def spend(db, dollars, resource="accounts/hearth/deployments/main", account_id="hearth", month=None):
    with db.session() as session:
        session.add(
            SpendRow(
                month=month or month_of(now()),
                account_id=account_id,
                resource=resource,
                cost_nanos=int(dollars * 10**9),
            )
        )


@pytest.fixture
def base(api, db):
    """A base model that is READY and takes addons."""
    with db.session() as session:
        row = ModelRow(
            account_id="hearth", id="llama", kind="HF_BASE_MODEL", state="READY", context_length=128
        )
        row.facts = {"supports_lora": True, "context_length": 128}
        session.add(row)
    return row


@pytest.fixture
def eight_gpus(monkeypatch):
    """A machine with eight H100, as far as the API looks."""
    devices = ["NVIDIA H100 80GB HBM3"] * 8
    from controlplane.resources.deployments import engine

    monkeypatch.setattr(engine, "local_devices", lambda: devices)
    monkeypatch.setattr(quotas, "local_devices", lambda: devices)


async def deploy(api, base, deployment_id, **fields):
    body = {"baseModel": base.name, "acceleratorType": H100, "acceleratorCount": 1, **fields}
    return await api.post(f"{P}/deployments?deploymentId={deployment_id}", json=body)


def refusal(answer):
    """The message of a refusal for a quota, whose details say the same."""
    assert answer.status_code == 429, answer.text
    body = answer.json()
    assert body["code"] == 8
    failure, info = body["details"]
    assert failure["violations"] == [{"subject": "accounts/hearth", "description": body["message"]}]
    assert (info["reason"], info["domain"]) == ("QUOTA_EXCEEDED", "hearth")
    assert answer.headers["x-should-retry"] == "false"
    return body["message"], info["metadata"]


async def test_every_quota_is_listed_with_its_default_and_what_is_used(api):
    assert (await create_model(api, "one")).status_code == 200
    answer = (await api.get(f"{P}/quotas")).json()
    assert [quota["name"] for quota in answer["quotas"]] == [
        f"accounts/hearth/quotas/{key}" for key in sorted(DEFAULTS)
    ]
    assert answer["totalSize"] == len(DEFAULTS)
    models = next(quota for quota in answer["quotas"] if quota["name"].endswith("/models"))
    assert models == {
        "name": "accounts/hearth/quotas/models",
        "value": "10000",
        "maxValue": "1000000",
        "usage": 1.0,
    }


async def test_the_list_can_be_filtered_ordered_and_read_in_pages(api):
    asked = {"filter": "value >= 5000", "orderBy": "value desc", "pageSize": 3}
    first = (await api.get(f"{P}/quotas", params=asked)).json()
    second = (await api.get(f"{P}/quotas", params={**asked, "pageToken": first["nextPageToken"]})).json()
    names = [quota["name"].rpartition("/")[2] for quota in first["quotas"] + second["quotas"]]
    assert first["totalSize"] == 8
    assert names[:5] == [
        "stored-response-bytes",
        "monthly-spend-usd",
        "serverless-inference-prompt-tpm",
        "serverless-inference-generated-tpm",
        "stored-responses",
    ]
    assert names[5] in ("datasets", "models")


async def test_an_admin_sets_a_value_up_to_the_maximum(api, db):
    quota = await set_quota(api, "models", "20000")
    assert (quota["value"], quota["maxValue"]) == ("20000", "1000000")
    assert "updateTime" in quota
    assert (await api.get(f"{P}/quotas/models")).json() == quota
    with db.session() as session:
        assert session.scalar(select(AuditLogRow.resource)) == "accounts/hearth/quotas/models"
    above = await api.patch(f"{P}/quotas/models", json={"value": 1_000_001})
    assert above.status_code == 400
    assert above.json()["message"] == "value 1,000,001 is more than maxValue 1,000,000"


@pytest.mark.parametrize("value", [-1, "many", 1.5, True, 2**63])
async def test_a_value_that_is_no_amount_is_refused(api, value):
    assert (await api.patch(f"{P}/quotas/models", json={"value": value})).status_code == 400


async def test_the_maximum_is_the_operators(api, db):
    refused = await api.patch(f"{P}/quotas/models", json={"maxValue": "2000000"})
    assert refused.status_code == 403
    assert "the platform's operator alone" in refused.json()["message"]
    same = await api.patch(f"{P}/quotas/models", json={"maxValue": "1000000", "value": 7})
    assert same.status_code == 200
    with db.session() as session:
        set_max_value(session, "hearth", "models", 5, None)
    # What was set before goes no further than what is allowed now.
    assert (await api.get(f"{P}/quotas/models")).json()["value"] == "5"


async def test_what_was_read_can_be_written_back(api):
    read = await api.get(f"{P}/quotas/models")
    written = await api.patch(
        f"{P}/quotas/models", json=read.json() | {"value": "9"}, headers={"If-Match": read.headers["etag"]}
    )
    assert written.json()["value"] == "9"
    stale = await api.patch(
        f"{P}/quotas/models", json={"value": "8"}, headers={"If-Match": read.headers["etag"]}
    )
    assert stale.status_code == 412


async def test_a_quota_that_does_not_exist_is_not_found(api):
    for answer in (
        await api.get(f"{P}/quotas/h100-mars-1"),
        await api.patch(f"{P}/quotas/h100-mars-1?allowMissing=true", json={"value": 1}),
    ):
        assert answer.status_code == 404


async def test_another_accounts_quotas_are_not_found(api, other_key):
    api.headers["Authorization"] = f"Bearer {other_key}"
    assert (await api.get(f"{P}/quotas")).status_code == 404
    assert (await api.patch(f"{P}/quotas/models", json={"value": 1})).status_code == 404


async def test_models_up_to_the_quota(api):
    await set_quota(api, "models", 2)
    for model_id in ("a", "b"):
        assert (await create_model(api, model_id)).status_code == 200
    message, metadata = refusal(await create_model(api, "c"))
    assert message == (
        "quota models of accounts/hearth is used up: at most 2, and 2 are there: accounts/hearth/models/a, "
        "accounts/hearth/models/b; an admin of the account may raise the quota up to 1,000,000"
    )
    assert metadata == {"quota": "accounts/hearth/quotas/models", "limit": "2", "maxValue": "1000000"}
    assert (await api.delete(f"{P}/models/a")).status_code == 200
    assert (await create_model(api, "c")).status_code == 200


async def test_three_names_are_told_and_how_many_others(api, db):
    for dataset_id in ("a", "b", "c", "d", "e"):
        assert (await create_dataset(api, dataset_id)).status_code == 200
    with db.session() as session:
        set_max_value(session, "hearth", "datasets", 3, None)
    message, _ = refusal(await create_dataset(api, "f"))
    assert "at most 3, and 5 are there: accounts/hearth/datasets/a, " in message
    assert "accounts/hearth/datasets/c and 2 others; the platform's operator may allow more" in message


async def test_accounts_have_quotas_of_their_own(api, other_key):
    await set_quota(api, "models", 0)
    refusal(await create_model(api, "a"))
    api.headers["Authorization"] = f"Bearer {other_key}"
    body = {"modelId": "a", "model": {"kind": "HF_BASE_MODEL"}}
    assert (await api.post("/v1/accounts/rival/models", json=body)).status_code == 200


async def test_of_those_that_come_at_once_one_gets_the_last_place(api):
    await set_quota(api, "datasets", 3)
    for dataset_id in ("a", "b"):
        await create_dataset(api, dataset_id)
    answers = await asyncio.gather(*(create_dataset(api, f"race-{n}") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7
    assert (await api.get(f"{P}/datasets")).json()["totalSize"] == 3


async def test_the_last_place_for_an_addon_goes_to_one(api, db, base):
    with db.session() as session:
        for n in range(3):
            session.add(
                ModelRow(
                    account_id="hearth",
                    id=f"tuned-{n}",
                    kind="HF_PEFT_ADDON",
                    state="READY",
                    base_model_uid=base.uid,
                    facts={"r": 8},
                )
            )
    body = {"baseModel": base.name, "enableAddons": True}
    assert (await api.post(f"{P}/deployments?deploymentId=main", json=body)).status_code == 200
    await set_quota(api, "deployed-addons", 1)

    async def load(n):
        return await api.post(f"{P}/deployedModels", json={"model": f"tuned-{n}", "deployment": "main"})

    answers = await asyncio.gather(*(load(n) for n in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
    message, _ = refusal(next(answer for answer in answers if answer.status_code == 429))
    # The base on its own deployment is no addon.
    assert "quota deployed-addons of accounts/hearth is used up: at most 1, and 1 are there" in message


async def test_gpus_are_counted_by_replicas_and_accelerators(api, db, base, eight_gpus):
    await set_quota(api, accelerator_quota(H100), 6)
    two_by_two = {"acceleratorCount": 2, "maxReplicaCount": 2}
    assert (await deploy(api, base, "first", **two_by_two)).status_code == 200
    message, metadata = refusal(await deploy(api, base, "second", acceleratorCount=3))
    assert message.startswith(
        "quota h100-count of accounts/hearth is used up: at most 6 on-demand NVIDIA_H100_80GB, and "
        "this takes 3 (replicas × accelerators), while 4 are held: accounts/hearth/deployments/first (4); "
    )
    assert metadata["quota"] == "accounts/hearth/quotas/h100-count"
    assert (await deploy(api, base, "second", acceleratorCount=2)).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 6


async def test_a_deployment_grows_only_within_the_quota_and_always_shrinks(api, db, base, eight_gpus):
    await set_quota(api, "h100-count", 4)
    assert (await deploy(api, base, "main", acceleratorCount=2, maxReplicaCount=2)).status_code == 200
    change = {"baseModel": base.name}
    refusal(await api.patch(f"{P}/deployments/main", json={**change, "maxReplicaCount": 3}))
    refusal(await api.patch(f"{P}/deployments/main", json={**change, "acceleratorCount": 4}))
    await set_quota(api, "h100-count", 1)
    shrunk = await api.patch(f"{P}/deployments/main", json={**change, "maxReplicaCount": 1})
    assert shrunk.status_code == 200, shrunk.text
    assert (await api.get(f"{P}/deployments/main")).json()["maxReplicaCount"] == 1


async def test_a_deleted_deployment_gives_its_gpus_back_and_needs_them_again(api, db, base, eight_gpus):
    await set_quota(api, "h100-count", 2)
    assert (await deploy(api, base, "first", acceleratorCount=2)).status_code == 200
    refusal(await deploy(api, base, "second"))
    assert (await api.delete(f"{P}/deployments/first?ignoreChecks=true")).status_code == 200
    assert (await deploy(api, base, "second")).status_code == 200
    with db.session() as session:  # its engines are gone
        row = session.scalar(select(DeploymentRow).where(DeploymentRow.id == "first"))
        session.execute(text("DELETE FROM deployed_models WHERE deployment_uid = :uid"), {"uid": row.uid})
        row.state, row.delete_time, row.purge_time = "DELETED", now(), now() + timedelta(days=7)
    refusal(await api.post(f"{P}/deployments/first:undelete", json={}))
    await set_quota(api, "h100-count", 3)
    assert (await api.post(f"{P}/deployments/first:undelete", json={})).status_code == 200


async def test_the_last_gpus_go_to_one(api, base, eight_gpus):
    await set_quota(api, "h100-count", 5)
    answers = await asyncio.gather(*(deploy(api, base, f"race-{n}", acceleratorCount=3) for n in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429]


async def test_reserved_gpus_are_taken_first_and_do_not_count(api, db, base, eight_gpus):
    await set_quota(api, "h100-count", 1)
    with db.session() as session:
        wanted = WantedReservation("hearth", H100, 4, id="ours", start_time=now() - timedelta(hours=1))
        create_reservation(session, wanted, "operator")
    assert (await deploy(api, base, "first", acceleratorCount=3)).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 0
    assert (await deploy(api, base, "second", acceleratorCount=2)).status_code == 200
    assert (await api.get(f"{P}/quotas/h100-count")).json()["usage"] == 1
    message, _ = refusal(await deploy(api, base, "third"))
    assert "at most 1 on-demand NVIDIA_H100_80GB besides 4 reserved, and this takes 1" in message
    assert "accounts/hearth/deployments/first (3), accounts/hearth/deployments/second (2)" in message


@pytest.mark.parametrize("days", [-400, 1])
async def test_a_reservation_counts_only_while_it_is_active(api, db, base, eight_gpus, days):
    await set_quota(api, "h100-count", 0)
    with db.session() as session:
        start = now() + timedelta(days=days)
        create_reservation(session, WantedReservation("hearth", H100, 4, start_time=start), "operator")
    refusal(await deploy(api, base, "main"))


async def test_who_has_spent_the_month_may_start_nothing_new(api, db, base):
    assert (
        await api.post(f"{P}/deployments?deploymentId=main", json={"baseModel": base.name})
    ).status_code == 200
    spend(db, 30, "accounts/hearth/deployments/main")
    spend(db, 20.005, "accounts/fireworks/models/llama")
    spend(db, 1000, month=month_of(now() - timedelta(days=40)))
    await set_quota(api, "monthly-spend-usd", 50)
    refused = [
        await api.post(f"{P}/deployments", json={"baseModel": base.name}),
        await api.patch(f"{P}/deployments/main", json={"baseModel": base.name, "maxReplicaCount": 4}),
    ]
    for answer in refused:
        message, metadata = refusal(answer)
        assert message == (
            "quota monthly-spend-usd of accounts/hearth is used up: at most $50 in a month, and $50.00 is "
            f"spent in {now():%Y-%m}: accounts/hearth/deployments/main, accounts/fireworks/models/llama; "
            "an admin of the account may raise the quota up to 9,999,999"
        )
        assert metadata["limit"] == "50"
    usage = (await api.get(f"{P}/quotas/monthly-spend-usd")).json()["usage"]
    assert usage == 50.005
    # Models and datasets cost nothing.
    assert (await create_dataset(api, "d")).status_code == 200


async def test_raising_the_quota_lifts_the_suspension_at_once(api, db, base):
    spend(db, 50)
    await set_quota(api, "monthly-spend-usd", 50)
    assert (await api.get(P)).json()["suspendState"] == "MONTHLY_SPEND_LIMIT_EXCEEDED"
    listed = await api.get("/v1/accounts", params={"filter": "suspend_state = MONTHLY_SPEND_LIMIT_EXCEEDED"})
    assert listed.json()["totalSize"] == 1
    refusal(await api.post(f"{P}/deployments", json={"baseModel": base.name}))
    await set_quota(api, "monthly-spend-usd", 51)
    assert (await api.get(P)).json()["suspendState"] == "UNSUSPENDED"
    assert (await api.post(f"{P}/deployments", json={"baseModel": base.name})).status_code == 200


async def test_an_empty_row_says_nothing_of_the_platforms_default(api, db):
    with db.session() as session:
        session.add(QuotaRow(account_id="hearth", id="models"))
    assert (await api.get(f"{P}/quotas/models")).json()["value"] == "10000"
