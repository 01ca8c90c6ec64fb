"""Deployments over HTTP: what is recorded, and what is refused by name. No worker runs here."""

import asyncio
import uuid
from contextlib import nullcontext

import pytest
from sqlalchemy import func, select, update

from controlplane.db import AsyncDatabase
from controlplane.errors import ApiError, Code
from controlplane.resources.deployments.accelerators import check_accelerators, local_devices
from controlplane.resources.tables import AuditLogRow, DeployedModelRow, DeploymentRow, ModelRow, ReplicaRow
from controlplane.rest.access import insert

PATH = "/v1/accounts/hearth/deployments"


def rows(db, table=DeploymentRow):
    with db.session() as session:
        return list(session.scalars(select(table)))


def change(db, **values):
    with db.session() as session:
        session.execute(update(DeploymentRow).values(**values))


async def create(api, deployment_id="d", **fields):
    return await api.post(
        f"{PATH}?deploymentId={deployment_id}", json={"baseModel": "accounts/hearth/models/base", **fields}
    )


def refusal(answer):
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def test_a_deployment_is_recorded_with_its_base_model_and_left_to_the_workers(api, db, base):
    made = (await create(api, displayName="Mine", annotations={"team": "a"})).json()
    assert made["name"] == "accounts/hearth/deployments/d"
    assert made["baseModel"] == "accounts/hearth/models/base"
    assert (made["state"], made["status"]["message"]) == ("CREATING", "waiting for a worker to start it")
    assert (made["minReplicaCount"], made["maxReplicaCount"], made["desiredReplicaCount"]) == (0, 1, 1)
    assert (made["replicaCount"], made["replicaStats"]["readyReplicaCount"]) == (0, 0)
    assert made["annotations"] == {"team": "a"}
    (row,), (deployed,) = rows(db), rows(db, DeployedModelRow)
    assert row.next_reconcile_at is not None
    assert (deployed.deployment_uid, deployed.state, deployed.default) == (row.uid, "DEPLOYING", True)


async def test_the_base_model_may_be_named_by_its_id_and_the_deployment_names_itself(api, base):
    made = (await api.post(PATH, json={"base_model": "base"})).json()
    assert made["baseModel"] == "accounts/hearth/models/base"
    assert len(made["name"].rsplit("/", 1)[1]) == 8


async def test_the_base_model_is_not_deployed_when_not_wanted(api, db, base):
    assert (await api.post(f"{PATH}?disableAutoDeploy=true", json={"baseModel": "base"})).status_code == 200
    assert rows(db, DeployedModelRow) == []


async def test_validating_answers_as_if_and_creates_nothing(api, db, base):
    for flag in ("validateOnly", "dryRun"):
        answer = await api.post(f"{PATH}?deploymentId=d&{flag}=true", json={"baseModel": "base"})
        assert answer.json()["name"] == "accounts/hearth/deployments/d"
        assert (rows(db), rows(db, DeployedModelRow), rows(db, AuditLogRow)) == ([], [], [])
        bad = await api.post(f"{PATH}?{flag}=true", json={"baseModel": "base", "precision": "FP8"})
        assert bad.json() == (await api.post(PATH, json={"baseModel": "base", "precision": "FP8"})).json()
    await create(api)
    taken = await api.post(f"{PATH}?deploymentId=d&validateOnly=true", json={"baseModel": "base"})
    assert refusal(taken) == (409, 6, "accounts/hearth/deployments/d already exists")


async def test_an_id_is_taken_once(api, base):
    await create(api)
    assert refusal(await create(api)) == (409, 6, "accounts/hearth/deployments/d already exists")


async def test_replica_limits_have_defaults(api, base):
    cases = [
        ({}, (0, 1, 1)),
        ({"minReplicaCount": 2}, (2, 2, 2)),
        ({"maxReplicaCount": 3}, (0, 3, 1)),
        ({"minReplicaCount": 2, "maxReplicaCount": 3}, (2, 3, 2)),
        ({"maxReplicaCount": 0}, (0, 0, 0)),
    ]
    for number, (fields, limits) in enumerate(cases):
        made = (await create(api, f"d{number}", **fields)).json()
        assert (made["minReplicaCount"], made["maxReplicaCount"], made["desiredReplicaCount"]) == limits


REFUSED = [
    ({"minReplicaCount": 3, "maxReplicaCount": 2}, "minReplicaCount 3 is more than maxReplicaCount 2"),
    ({"minReplicaCount": -1}, "minReplicaCount"),
    ({"maxReplicaCount": 1001}, "maxReplicaCount"),
    ({"baseModel": ""}, "baseModel is required"),
    ({"acceleratorType": "NVIDIA_H100_80GB"}, "this machine has no GPU"),
    ({"acceleratorCount": 1}, "this machine has no GPU"),
    (
        {"acceleratorType": "H9000"},
        "acceleratorType: 'H9000' is none of ACCELERATOR_TYPE_UNSPECIFIED, NVIDIA_",
    ),
    ({"precision": "FP8"}, "precision FP8 needs a GPU, and models run on the CPU here; use BF16 or FP16"),
    ({"precision": "NF4"}, "precision NF4 is not served; use BF16 or FP16"),
    ({"precision": "FP1"}, "precision: 'FP1' is none of PRECISION_UNSPECIFIED, FP16"),
    ({"maxContextLength": 2048}, "more than the model's own 1024"),
    (
        {"placement": {"region": "US_IOWA_1"}},
        "placement is not supported: replicas run on this platform's own machines; there are no regions",
    ),
    ({"placement": {"multiRegion": "EUROPE"}}, "placement is not supported"),
    ({"placement": {"region": "X" * 61}}, "placement.region: String should have at most 60 characters"),
    ({"directRouteType": "INTERNET"}, "directRouteType is not supported"),
    ({"enableHotLoad": True}, "enableHotLoad is not supported"),
    ({"directRouteType": "TUNNEL"}, "directRouteType: 'TUNNEL' is none of DIRECT_ROUTE_TYPE_UNSPECIFIED"),
    ({"hotLoadBucketType": "S3"}, "hotLoadBucketType is not supported"),
    ({"hotLoadBucketType": "FTP"}, "hotLoadBucketType: 'FTP' is none of BUCKET_TYPE_UNSPECIFIED, MINIO"),
    ({"hotLoadTrainerJob": "x"}, "hotLoadTrainerJob is not supported"),
    ({"hotLoadTransitionType": "x"}, "hotLoadTransitionType is not supported"),
    ({"placement": {"multiRegion": "MOON"}}, "'MOON' is none of MULTI_REGION_UNSPECIFIED, GLOBAL"),
    ({"placement": {"planet": "MARS"}}, 'unknown field "placement.planet"'),
    ({"autoTune": {"longPrompt": True}}, "and models run on the CPU here; leave it unset"),
    ({"autoTune": {"shortPrompt": True}}, 'unknown field "autoTune.shortPrompt"'),
    ({"enableMtp": True}, "enableMtp is not supported"),
    ({"pricingPlanId": "x"}, "pricingPlanId is not supported"),
    ({"targetModelVersion": "x"}, "targetModelVersion is not supported"),
    ({"maxWithRevocableReplicaCount": 3}, "maxWithRevocableReplicaCount is not supported"),
    ({"expireTime": "2030-01-01T00:00:00Z"}, "expireTime is not supported"),
    ({"ngramSpeculationLength": -1}, "ngramSpeculationLength: Input should be greater than or equal to 0"),
    ({"ngramSpeculationLength": 101}, "ngramSpeculationLength: Input should be less than or equal to 100"),
    ({"ngramSpeculationLength": "3x"}, "ngramSpeculationLength"),
    ({"draftTokenCount": 2}, "draftTokenCount 2 needs ngramSpeculationLength or draftModel: it says how"),
    ({"ngramSpeculationLength": 3, "draftTokenCount": 9}, "draftTokenCount: Input should be less than or"),
    ({"colour": "red"}, 'unknown field "colour"'),
]


async def test_what_cannot_be_honoured_is_refused_by_name(api, db, base, monkeypatch):
    monkeypatch.setattr("controlplane.resources.deployments.engine.local_devices", list)
    for fields, words in REFUSED:
        status, code, message = refusal(await create(api, **fields))
        assert (status, code) == (400, 3), fields
        assert words in message
    assert rows(db) == []


async def test_unsupported_fields_at_their_defaults_and_those_of_older_clients_are_taken(api, base):
    made = await create(api, draftModel="", placement=None, createdBy="me", worldSize=1, spot=False)
    assert made.status_code == 200
    assert not {"createdBy", "worldSize", "spot", "placement"} & made.json().keys()
    assert (made.json()["draftModel"], made.json()["region"]) == ("", "REGION_UNSPECIFIED")


async def test_only_a_ready_base_model_that_the_caller_may_read_is_deployed(api, add_model):
    cases = [
        (
            400,
            {"state": "UPLOADING", "status_message": "no files yet"},
            "is UPLOADING, not READY: no files yet",
        ),
        (400, {"kind": "HF_PEFT_ADDON"}, "is an addon; deploy its base model"),
        (404, {"account_id": "rival"}, "accounts/rival/models/m2 not found"),
    ]
    for number, (status, values, words) in enumerate(cases):
        answer = await api.post(PATH, json={"baseModel": add_model(f"m{number}", **values).name})
        assert answer.status_code == status
        assert words in answer.json()["message"]


async def test_a_public_model_of_another_account_is_deployed_by_each_for_itself(
    api, db, add_model, other_key
):
    public = add_model("llama", account_id="fireworks", public=True)
    mine = await api.post(PATH, json={"baseModel": public.name})
    assert mine.json()["baseModel"] == "accounts/fireworks/models/llama"
    theirs = await api.post(
        "/v1/accounts/rival/deployments",
        json={"baseModel": public.name},
        headers={"Authorization": f"Bearer {other_key}"},
    )
    assert theirs.status_code == 200
    assert [row.default for row in rows(db, DeployedModelRow)] == [True, True]
    refs = (await api.get("/v1/accounts/fireworks/models/llama")).json()["deployedModelRefs"]
    assert [ref["deployment"] for ref in refs] == [mine.json()["name"]]


async def test_another_account_sees_nothing(api, base, other_key):
    await create(api)
    api.headers["Authorization"] = f"Bearer {other_key}"
    for answer in (
        await api.get(f"{PATH}/d"),
        await api.get(PATH),
        await api.patch(f"{PATH}/d", json={"displayName": "x"}),
        await api.patch(f"{PATH}/d:scale", json={"replicaCount": 0}),
        await api.delete(f"{PATH}/d"),
    ):
        assert answer.status_code == 404
    answer = await api.get("/v1/accounts/rival/deployments/d")
    assert answer.status_code == 404


async def test_get_counts_replicas_by_stage(api, db, base):
    await create(api)
    with db.session() as session:
        uid = session.scalars(select(DeploymentRow.uid)).one()
        for state in ("PENDING", "STARTING", "LOADING", "READY", "READY", "STOPPING", "FAILED"):
            session.add(ReplicaRow(deployment_uid=uid, state=state))
    shown = (await api.get(f"{PATH}/d")).json()
    assert shown["replicaCount"] == 5
    assert shown["replicaStats"] == {
        "pendingSchedulingReplicaCount": 1,
        "downloadingModelReplicaCount": 1,
        "initializingReplicaCount": 1,
        "readyReplicaCount": 2,
        "revocableReplicaCount": 0,
        "partialReplicaCount": 0.0,
    }
    assert (await api.get(f"{PATH}/d?readMask=replicaCount")).json() == {"replicaCount": 5}


async def test_a_patch_changes_descriptions_without_disturbing_the_engines(api, db, base):
    await create(api)
    change(db, state="READY", next_reconcile_at=None)
    body = {"baseModel": "accounts/hearth/models/base", "displayName": "New"}
    changed = (await api.patch(f"{PATH}/d", json=body)).json()
    assert (changed["displayName"], changed["state"]) == ("New", "READY")
    assert rows(db)[0].next_reconcile_at is None


async def test_a_patch_of_the_limits_holds_the_replicas_between_them(api, db, base):
    await create(api, maxReplicaCount=4)
    change(db, state="READY")
    changed = (await api.patch(f"{PATH}/d", json={"minReplicaCount": 3})).json()
    assert (changed["minReplicaCount"], changed["maxReplicaCount"], changed["desiredReplicaCount"]) == (
        3,
        4,
        3,
    )
    assert changed["state"] == "UPDATING"
    shut = (await api.patch(f"{PATH}/d", json={"minReplicaCount": 0, "maxReplicaCount": 0})).json()
    assert shut["desiredReplicaCount"] == 0
    opened = (await api.patch(f"{PATH}/d", json={"maxReplicaCount": 2})).json()
    assert opened["desiredReplicaCount"] == 1


async def test_a_patch_of_engine_settings_asks_for_new_engines(api, db, base):
    await create(api)
    changed = (await api.patch(f"{PATH}/d", json={"enableAddons": True, "maxContextLength": 512})).json()
    assert (changed["enableAddons"], changed["maxContextLength"]) == (True, 512)
    assert rows(db)[0].generation == 2
    await api.patch(f"{PATH}/d", json={"enableAddons": True})
    assert rows(db)[0].generation == 2
    assert (await api.patch(f"{PATH}/d", json={"maxContextLength": 4096})).status_code == 400


async def test_the_base_model_of_a_deployment_stays(api, add_model, base):
    add_model("other")
    await create(api)
    answer = await api.patch(f"{PATH}/d", json={"baseModel": "other"})
    assert "baseModel of a deployment cannot be changed" in answer.json()["message"]
    assert (await api.patch(f"{PATH}/d", json={"baseModel": "base"})).status_code == 200


async def test_a_failed_deployment_is_tried_again_when_the_user_acts(api, db, base):
    await create(api, maxReplicaCount=2)
    for path, body in (("d", {"maxReplicaCount": 2}), ("d:scale", {"replicaCount": 2})):
        change(db, state="FAILED", consecutive_failures=5, status_code="INTERNAL", next_reconcile_at=None)
        assert (await api.patch(f"{PATH}/{path}", json=body)).status_code == 200
        (row,) = rows(db)
        assert (row.state, row.status_code, row.consecutive_failures) == ("UPDATING", "OK", 0)
        assert row.next_reconcile_at is not None


async def test_scaling_stays_within_the_limits(api, db, base):
    await create(api, minReplicaCount=1, maxReplicaCount=3)
    assert (await api.patch(f"{PATH}/d:scale", json={"replicaCount": 3})).json() == {}
    assert rows(db)[0].desired_replica_count == 3
    for count in (0, 4):
        status, code, message = refusal(await api.patch(f"{PATH}/d:scale", json={"replicaCount": count}))
        assert (status, code) == (400, 3)
        assert "is not between minReplicaCount 1 and maxReplicaCount 3" in message


async def test_a_deleted_deployment_is_on_its_way_out(api, db, base):
    await create(api)
    assert (await api.delete(f"{PATH}/d")).json() == {}
    assert (await api.get(f"{PATH}/d")).json()["state"] == "DELETING"
    assert [row.state for row in rows(db, DeployedModelRow)] == ["UNDEPLOYING"]
    assert (await api.delete(f"{PATH}/d")).json() == {}
    for answer in (
        await api.patch(f"{PATH}/d", json={"displayName": "x"}),
        await api.patch(f"{PATH}/d:scale", json={"replicaCount": 1}),
    ):
        assert refusal(answer) == (400, 9, "accounts/hearth/deployments/d is being deleted")


async def test_a_deleted_deployment_is_listed_on_request_and_its_id_is_free(api, db, base):
    await create(api)
    change(db, state="DELETED", delete_time=func.now())
    assert (await api.get(PATH)).json()["deployments"] == []
    assert (await api.get(f"{PATH}/d")).json()["state"] == "DELETED"
    assert (await api.delete(f"{PATH}/d")).status_code == 404
    assert (await api.patch(f"{PATH}/d", json={"displayName": "x"})).status_code == 404
    with db.session() as session:
        session.execute(DeployedModelRow.__table__.delete())
    assert (await create(api)).status_code == 200
    assert (await api.get(f"{PATH}/d")).json()["state"] == "CREATING"
    names, token = [], ""
    while True:
        page = (await api.get(PATH, params={"showDeleted": True, "pageSize": 1, "pageToken": token})).json()
        names += [(found["name"], found["state"]) for found in page["deployments"]]
        token = page["nextPageToken"]
        if not token:
            break
    name = "accounts/hearth/deployments/d"
    assert sorted(names) == [(name, "CREATING"), (name, "DELETED")]


async def test_addons_keep_their_deployment_unless_told_otherwise(api, db, add_model, base):
    await create(api, enableAddons=True)
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=base.uid, facts={"r": 8})
    addon = await api.post("/v1/accounts/hearth/deployedModels", json={"model": "poet", "deployment": "d"})
    status, code, message = refusal(await api.delete(f"{PATH}/d"))
    assert (status, code) == (400, 9)
    assert addon.json()["name"] in message
    status, code, message = refusal(await api.patch(f"{PATH}/d", json={"enableAddons": False}))
    assert (status, code) == (400, 9)
    assert (await api.delete(f"{PATH}/d?ignoreChecks=true")).status_code == 200
    assert {row.state for row in rows(db, DeployedModelRow)} == {"UNDEPLOYING"}


async def test_deleting_hard_leaves_nothing_to_wait_for(api, db, base):
    await create(api)
    await api.delete(f"{PATH}/d?hard=true")
    assert rows(db)[0].purge_time is not None


async def test_of_many_creates_of_one_id_one_wins(api, db, base):
    answers = await asyncio.gather(*(create(api) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert (len(rows(db)), len(rows(db, DeployedModelRow))) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "count", "devices", "words"),
    [
        ("ACCELERATOR_TYPE_UNSPECIFIED", 0, [], ""),
        ("NVIDIA_H100_80GB", 1, ["NVIDIA H100 80GB HBM3"], ""),
        ("NVIDIA_A100_40GB", 1, ["NVIDIA A100-SXM4-40GB"], ""),
        ("NVIDIA_A100_80GB", 1, ["NVIDIA A100-SXM4-40GB"], "this machine has NVIDIA A100-SXM4-40GB"),
        ("NVIDIA_L4_24GB", 1, ["NVIDIA L4"], ""),
        ("NVIDIA_L4_24GB", 2, ["NVIDIA L4"], "acceleratorCount is 2, and this machine has 1 GPUs"),
        ("ACCELERATOR_TYPE_UNSPECIFIED", 2, [], "2 GPUs cannot be had"),
    ],
)
def test_accelerators_are_those_of_the_machine(kind, count, devices, words):
    with pytest.raises(ApiError, match=words) if words else nullcontext():
        check_accelerators(kind, count, devices)


def test_the_machines_gpus_are_what_the_driver_lists(tmp_path):
    assert local_devices(tmp_path / "absent") == []
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 5\n")
    assert local_devices(tmp_path) == ["NVIDIA H100 80GB HBM3"]


async def test_a_mask_into_the_annotations_leaves_the_others(api, base):
    await create(api, annotations={"team": "a", "tier": "gold"})
    part = f"{PATH}/d?updateMask=annotations.team"
    changed = await api.patch(part, json={"annotations": {"team": "b", "tier": "tin"}})
    assert changed.json()["annotations"] == {"team": "b", "tier": "gold"}
    assert (await api.patch(part, json={})).json()["annotations"] == {"tier": "gold"}
    refused = await api.patch(
        f"{PATH}/d?updateMask=placement.region", json={"placement": {"region": "US_IOWA_1"}}
    )
    assert refusal(refused) == (
        400,
        3,
        "placement of a deployment cannot be changed; make another deployment",
    )


async def test_what_is_named_and_deleted_at_the_same_moment_is_a_conflict(api, base, db):
    with pytest.raises(ApiError) as refused:
        async with AsyncDatabase(db.engine.url.render_as_string(hide_password=False)).session() as session:
            row = ModelRow(account_id="hearth", id="m", kind="K", state="S", base_model_uid=uuid.uuid4())
            await insert(session, row, "accounts/hearth/models/m")
    assert refused.value.code is Code.ABORTED
