"""Usage and its cost as the API shows them: exact, by day and group, and to nobody else."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.bootstrap import create_key, ensure_user
from controlplane.db import now
from controlplane.resources.ledger.entries import Entry, write_entries
from controlplane.resources.reservations.service import WantedReservation, create_reservation
from controlplane.resources.tables import DeploymentRow, ModelRow

P = "/v1/accounts/hearth"
DAY = datetime(2026, 3, 10, tzinfo=UTC)
LLAMA = "accounts/fireworks/models/llama"
TUNED = "accounts/hearth/models/tuned"
MAIN = "accounts/hearth/deployments/main"
H100 = "NVIDIA_H100_80GB"
MARCH = {"startTime": "2026-03-01T00:00:00Z", "endTime": "2026-04-01T00:00:00Z"}


@pytest.fixture
def used(db):
    """Writes entries, as the gateway and the meter do."""

    def write(**values):
        fields = {
            "uid": uuid.uuid4(),
            "create_time": DAY + timedelta(hours=12),
            "account_id": "hearth",
            "owner_id": "hearth",
            "product": "inference",
            "model": TUNED,
            **values,
        }
        with db.session() as session:
            write_entries(session, [Entry(**fields)])

    return write


def tokens(prompt, cached, completion):
    return {"prompt_tokens": prompt, "cached_prompt_tokens": cached, "completion_tokens": completion}


@pytest.fixture
def a_month(used, api, other_key):
    """What the account and another one have used."""
    asked = {"model": LLAMA, "owner_id": "fireworks", "deployment": "accounts/fireworks/deployments/shared"}
    used(**asked, **tokens(100, 40, 10), key_id="k1", user_id="ada", cost_nanos=1_500_000_001)
    used(**asked, **tokens(1, 0, 1), key_id="k2", user_id="bob", cost_nanos=2)
    used(
        **asked,
        **tokens(7, 0, 3),
        key_id="k1",
        user_id="ada",
        cost_nanos=3,
        create_time=DAY + timedelta(hours=23),
    )
    used(deployment=MAIN, **tokens(50, 0, 5), key_id="k1", user_id="ada")
    gpus = {"product": "deployment", "model": "accounts/hearth/models/base", "deployment": MAIN}
    used(
        **gpus,
        end_time=DAY + timedelta(hours=12, seconds=60),
        duration_ms=60_400,
        accelerator_type=H100,
        accelerator_count=4,
        reserved_count=1,
        cost_nanos=10**9,
    )
    used(
        product="training",
        model="accounts/hearth/models/base",
        job="accounts/hearth/supervisedFineTuningJobs/j",
        trained_tokens=12_345,
        cost_nanos=7,
    )
    # Another account's: of the platform, and of what this account serves.
    used(account_id="rival", **asked, **tokens(999, 0, 999), key_id="k9", cost_nanos=9**9)
    used(account_id="rival", model=TUNED, deployment=MAIN, **tokens(30, 10, 20), key_id="k9", cost_nanos=5)


async def usage(api, **asked):
    answer = await api.get(f"{P}/billingUsage", params={**MARCH, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_usage_by_day_and_by_what_was_used(api, a_month):
    found = await usage(api)
    (serverless,) = found["serverlessCosts"]
    assert serverless == {
        "startTime": "2026-03-10T00:00:00.000000Z",
        "endTime": "2026-03-11T00:00:00.000000Z",
        "usageType": "SERVERLESS",
        "modelName": LLAMA,
        "apiKeyId": "",
        "group": {"model_name": LLAMA},
        "requestCount": "3",
        "promptTokens": "108",
        "cachedPromptTokens": "40",
        "completionTokens": "14",
        "totalCost": {"currencyCode": "USD", "units": "1", "nanos": 500_000_006},
    }
    (dedicated,) = found["dedicatedCosts"]
    assert (dedicated["deploymentId"], dedicated["acceleratorType"]) == ("main", H100)
    assert dedicated["acceleratorSeconds"] == "242"  # 4 × 60.4
    assert (dedicated["reservedAcceleratorSeconds"], dedicated["replicaSeconds"]) == ("60", "60")
    assert dedicated["totalCost"] == {"currencyCode": "USD", "units": "1", "nanos": 0}
    (own,) = found["dedicatedTokens"]
    assert (own["promptTokens"], own["totalCost"]["nanos"]) == ("50", 0)
    (training,) = found["trainingCosts"]
    assert (training["jobId"], training["jobType"]) == ("j", "supervisedFineTuningJobs")
    assert (training["tokens"], training["totalCost"]["nanos"]) == ("12345", 7)


async def test_what_others_used_is_told_in_numbers_only(api, a_month):
    found = await usage(api)
    assert found["servedToOthers"] == [
        {
            "startTime": "2026-03-10T00:00:00.000000Z",
            "endTime": "2026-03-11T00:00:00.000000Z",
            "deploymentId": "main",
            "modelName": TUNED,
            "requestCount": "1",
            "promptTokens": "30",
            "cachedPromptTokens": "10",
            "completionTokens": "20",
        }
    ]
    assert "rival" not in str(found)
    assert "k9" not in str(found)
    assert "deployments/shared" not in str(found)


async def test_usage_by_key_and_user(api, a_month):
    found = await usage(api, usageType="SERVERLESS", groupBy="api_key_id,user_id")
    rows = [(row["apiKeyId"], row["group"], row["totalCost"]) for row in found["serverlessCosts"]]
    assert rows == [
        (
            "k1",
            {"api_key_id": "k1", "user_id": "ada"},
            {"currencyCode": "USD", "units": "1", "nanos": 500_000_004},
        ),
        ("k2", {"api_key_id": "k2", "user_id": "bob"}, {"currencyCode": "USD", "units": "0", "nanos": 2}),
    ]
    assert found["dedicatedCosts"] == found["trainingCosts"] == []


async def test_usage_of_one_key(api, a_month):
    found = await usage(api, **{"filter[api_key_id][values]": "k2"})
    assert [row["requestCount"] for row in found["serverlessCosts"]] == ["1"]
    assert found["dedicatedTokens"] == found["dedicatedCosts"] == found["servedToOthers"] == []
    both = await usage(api, **{"filter[api_key_id][values]": "k1,k2"})
    assert [row["requestCount"] for row in both["serverlessCosts"]] == ["3"]


async def test_days_are_those_of_a_time_zone(api, a_month):
    found = await usage(api, usageType="SERVERLESS", timezone="Asia/Tokyo")
    assert [(row["startTime"], row["requestCount"]) for row in found["serverlessCosts"]] == [
        ("2026-03-09T15:00:00.000000Z", "2"),
        ("2026-03-10T15:00:00.000000Z", "1"),
    ]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"startTime": "2026-04-01T00:00:00Z"}, "startTime must be before endTime"),
        ({"startTime": "2026-02-01T00:00:00Z"}, "endTime must be at most 31 days after startTime"),
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus' is not known"),
        ({"timezone": "UTC'; --"}, "is not known"),
        ({"usageType": "EVERYTHING"}, "usageType 'EVERYTHING' is none of"),
        ({"groupBy": "colour"}, "groupBy 'colour' is none of model_name, api_key_id"),
        (
            {"usageType": "TRAINING", "groupBy": "api_key_id"},
            "groupBy 'api_key_id' is none of base_model, job_name",
        ),
        ({"filter[colour][values]": "red"}, 'unknown query parameter "filter[colour][values]"'),
    ],
)
async def test_what_is_asked_wrongly_is_refused_by_name(api, asked, says):
    answer = await api.get(f"{P}/billingUsage", params={**MARCH, **asked})
    assert answer.status_code == 400
    assert says in answer.json()["message"]


async def test_the_times_are_required(api):
    for path in ("billingUsage", "billing/summary"):
        assert (await api.get(f"{P}/{path}")).status_code == 400


async def test_the_end_is_exclusive_and_the_start_is_not(api, used):
    used(create_time=DAY, **tokens(1, 0, 0))
    used(create_time=DAY + timedelta(days=1), **tokens(2, 0, 0))
    found = await usage(api, startTime="2026-03-10T00:00:00Z", endTime="2026-03-11T00:00:00Z")
    assert [row["promptTokens"] for row in found["dedicatedTokens"]] == ["1"]


async def test_the_summary_adds_up_exactly(api, a_month):
    asked = {"startTime": "2026-03-10T18:00:00Z", "endTime": "2026-03-11T07:00:00Z"}
    summary = (await api.get(f"{P}/billing/summary", params=asked)).json()
    items = {
        item["series"]: (item["groupingKey"], item["groupingValue"], item["category"], item["quantity"])
        for item in summary["lineItems"]
    }
    assert items == {
        "SERVERLESS": ("model_name", LLAMA, "tokens", 122.0),
        "DEDICATED_DEPLOYMENT": ("deployment_name", MAIN, "accelerator_seconds", 241.6),
        "TRAINING": ("job_name", "accounts/hearth/supervisedFineTuningJobs/j", "trained_tokens", 12345.0),
    }
    assert summary["totalCost"] == {"currencyCode": "USD", "units": "2", "nanos": 500_000_013}
    (day,) = summary["usageBuckets"]
    assert (day["startTime"], day["endTime"]) == (
        "2026-03-10T00:00:00.000000Z",
        "2026-03-11T00:00:00.000000Z",
    )
    assert len(day["lineItems"]) == 3


async def test_the_summary_of_several_days(api, used):
    for day in (0, 1):
        used(
            model=LLAMA,
            owner_id="fireworks",
            **tokens(10, 0, 0),
            cost_nanos=999_999_999,
            create_time=DAY + timedelta(days=day),
        )
    summary = (await api.get(f"{P}/billing/summary", params=MARCH)).json()
    (item,) = summary["lineItems"]
    assert item["quantity"] == 20.0
    assert item["totalCost"] == {"currencyCode": "USD", "units": "1", "nanos": 999_999_998}
    assert [bucket["lineItems"][0]["quantity"] for bucket in summary["usageBuckets"]] == [10.0, 10.0]


async def test_only_those_who_may_see_bills_do(api, db, other_key, a_month):
    paths = (f"{P}/billingUsage", f"{P}/billing/summary", f"{P}/deployments/main/ledger")
    for role, expected in (("contributor", 403), ("inference-user", 403), ("user", 200)):
        with db.session() as session:
            user = ensure_user(session, "hearth", role, f"{role}@hearth.example", role)
            key = create_key(session, user, "test")
        headers = {"Authorization": f"Bearer {key}"}
        for path in paths[:2]:
            assert (await api.get(path, params=MARCH, headers=headers)).status_code == expected
    for path in paths:
        stranger = await api.get(path, params=MARCH, headers={"Authorization": f"Bearer {other_key}"})
        assert stranger.status_code in (400, 404)  # the ledger of a deployment takes no times
    for path in paths[:2]:
        stranger = await api.get(path, params=MARCH, headers={"Authorization": f"Bearer {other_key}"})
        assert stranger.status_code == 404


async def test_a_deployments_ledger_by_hour(api, db, used):
    start = now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    with db.session() as session:
        base = ModelRow(account_id="hearth", id="base", kind="HF_BASE_MODEL", state="READY")
        session.add(base)
        session.flush()
        session.add(
            DeploymentRow(
                account_id="hearth", id="main", base_model_uid=base.uid, state="READY", create_time=start
            )
        )
    interval = {"product": "deployment", "deployment": MAIN, "duration_ms": 60_000}
    # An earlier deployment of the same name is another one.
    used(**interval, accelerator_count=8, create_time=start - timedelta(minutes=1))
    used(**interval, accelerator_count=4, create_time=start)
    used(**interval, accelerator_count=4, create_time=start + timedelta(minutes=1))
    used(**interval, accelerator_count=0, create_time=start + timedelta(hours=1))
    points = (await api.get(f"{P}/deployments/main/ledger")).json()["ledger"]
    assert [point["value"] for point in points] == [480.0, 60.0]
    assert (await api.get(f"{P}/deployments/none/ledger")).status_code == 404


async def test_reservations_are_shown_to_everybody_of_the_account(api, db, other_key):
    with db.session() as session:
        for name, days in (("now", -1), ("later", 1), ("over", -400)):
            start = now() + timedelta(days=days)
            create_reservation(
                session,
                WantedReservation("hearth", H100, 8, id=name, start_time=start, region="US_IOWA_1"),
                "operator",
            )
    listed = (await api.get(f"{P}/reservations")).json()
    assert [(row["name"].rpartition("/")[2], row["state"]) for row in listed["reservations"]] == [
        ("later", "STATE_UNSPECIFIED"),
        ("now", "ACTIVE"),
        ("over", "EXPIRED"),
    ]
    one = (await api.get(f"{P}/reservations/now")).json()
    assert (one["acceleratorType"], one["reservedCount"]) == (H100, 8)
    assert (one["region"], one["multiRegion"]) == ("US_IOWA_1", "MULTI_REGION_UNSPECIFIED")
    chosen = await api.get(f"{P}/reservations", params={"filter": "state = ACTIVE AND reserved_count > 7"})
    assert chosen.json()["totalSize"] == 1
    assert (await api.post(f"{P}/reservations", json={})).status_code == 405
    stranger = {"Authorization": f"Bearer {other_key}"}
    assert (await api.get(f"{P}/reservations/now", headers=stranger)).status_code == 404
