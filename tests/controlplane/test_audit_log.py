"""The audit log: who changed what, written with the change, and nothing in it that is to stay secret."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field, SecretStr
from sqlalchemy import func, select, text

from controlplane.auth import Caller, generate_key
from controlplane.db import now
from controlplane.encryption import generate_secret_key
from controlplane.resources.audit_logs.service import LARGEST_BODY, REFUSALS_AN_HOUR, Budget, kept
from controlplane.resources.tables import AuditLogRow
from controlplane.rest.schema import WRITE_ONLY_FIELDS, ApiModel, write_only
from tests.controlplane.roles import add_user
from workers.context import WorkerContext
from workers.reconcile.sweep import AUDIT_LOGS_A_SWEEP, forget_old_audit_logs

LOGS = "/v1/accounts/hearth/auditLogs"
USERS = "/v1/accounts/hearth/users"
DATASETS = "/v1/accounts/hearth/datasets"


@pytest.fixture
def settings(settings):
    return type(settings)(**{**settings.model_dump(), "secret_keys": generate_secret_key()})


async def logs(api, query: str = "") -> list[dict[str, Any]]:
    answer = await api.get(f"{LOGS}{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["auditLogs"]


async def test_a_change_is_a_line_that_says_who_did_what_to_what(api, admin_key):
    await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com", "role": "user"})
    [line] = await logs(api)
    assert line["timestamp"].endswith("Z")
    key_id = (await api.get(f"{USERS}/admin/apiKeys")).json()["apiKeys"][0]["keyId"]
    assert {name: line[name] for name in line.keys() - {"name", "timestamp"}} == {
        "message": "CreateUser",
        "resource": "accounts/hearth/users/jane",
        "email": "admin@localhost",
        "user": "accounts/hearth/users/admin",
        "apiKeyId": key_id,
        "clientAddress": "127.0.0.1",
        "request": {"email": "jane@example.com", "role": "user"},
        "query": "userId=jane",
        "status": {"code": "OK", "message": ""},
    }


async def test_the_newest_comes_first_page_by_page(api):
    for number in range(5):
        await api.post(f"{USERS}?userId=u{number}", json={"email": f"u{number}@example.com"})
    found: list[str] = []
    token = ""
    while True:
        page = (await api.get(f"{LOGS}?pageSize=2&pageToken={token}")).json()
        found += [line["resource"].rpartition("/")[2] for line in page["auditLogs"]]
        assert page["totalSize"] == 5
        token = page["nextPageToken"]
        if not token:
            break
    assert found == ["u4", "u3", "u2", "u1", "u0"]


async def test_it_is_narrowed_by_time_by_person_and_by_a_filter(api, http, db):
    await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com", "role": "admin"})
    [first] = await logs(api)
    own = {"Authorization": f"Bearer {add_user(db, 'admin', user_id='jane')}"}
    await http.patch(f"{USERS}/jane", json={"displayName": "J"}, headers=own)

    async def messages(query: str) -> list[str]:
        return [line["message"] for line in await logs(api, query)]

    assert await messages("?email=JANE@example.com") == ["UpdateUser"]
    assert await messages(f"?endTime={first['timestamp']}") == []
    assert await messages(f"?startTime={first['timestamp']}") == ["UpdateUser", "CreateUser"]
    assert await messages('?filter=message="CreateUser"') == ["CreateUser"]
    assert await messages('?filter=resource="accounts/hearth/users/jane" AND message:"Update"') == [
        "UpdateUser"
    ]
    assert (await api.get(f"{LOGS}?startTime=yesterday")).status_code == 400


async def test_it_is_for_admins_of_the_account(api, http, db, other_key):
    await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com"})
    for role in ("user", "contributor", "inference-user"):
        headers = {"Authorization": f"Bearer {add_user(db, role)}"}
        assert (await http.get(LOGS, headers=headers)).status_code == 403
    foreign = {"Authorization": f"Bearer {other_key}"}
    assert (await http.get(LOGS, headers=foreign)).status_code == 404
    own = (await http.get("/v1/accounts/rival/auditLogs", headers=foreign)).json()
    assert own["auditLogs"] == []


async def test_what_did_not_happen_is_no_line(api):
    await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com"})
    for failed in (
        await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com"}),
        await api.patch(f"{USERS}/jane", json={"role": "owner"}),
        await api.delete(f"{USERS}/nobody"),
    ):
        assert failed.status_code in (400, 404, 409)
    assert [line["message"] for line in await logs(api)] == ["CreateUser"]


async def test_keys_are_named_and_never_shown(api, db):
    made = (await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": {"displayName": "ci"}})).json()
    await api.post(f"{USERS}/admin/apiKeys:delete", json={"keyId": made["keyId"]})
    pasted = {"apiKey": {"displayName": made["key"], "key": made["key"]}}
    await api.post(f"{USERS}/admin/apiKeys", json=pasted)
    created, deleted = (await logs(api))[:0:-1]
    name = f"accounts/hearth/users/admin/apiKeys/{made['keyId']}"
    assert (created["message"], created["resource"]) == ("CreateApiKey", name)
    assert (deleted["message"], deleted["resource"]) == ("DeleteApiKey", name)
    with db.session() as session:
        assert made["key"] not in str(session.execute(select(AuditLogRow.__table__)).all())


async def test_a_refused_attempt_is_a_line_without_what_was_sent(api, http, db):
    contributor = {"Authorization": f"Bearer {add_user(db, 'contributor')}"}
    await api.post(DATASETS, json={"datasetId": "d", "dataset": {}})
    refusals = [
        await http.post("/v1/accounts/hearth/secrets", json={"value": "plain-value"}, headers=contributor),
        await http.delete(f"{DATASETS}/d", headers=contributor),
    ]
    assert {answer.status_code for answer in refusals} == {403}
    [deleted, created] = await logs(api, "?filter=status.code=PERMISSION_DENIED")
    assert (deleted["message"], deleted["resource"]) == ("DeleteDataset", "accounts/hearth/datasets/d")
    assert deleted["email"] == "the-contributor@hearth.example"
    assert "may change only its own resources" in deleted["status"]["message"]
    assert (created["message"], created["request"]) == ("CreateSecret", {})
    assert "plain-value" not in json.dumps([created, deleted])


async def test_refused_attempts_cannot_fill_the_disk(http, admin_key, db):
    http.headers["Authorization"] = f"Bearer {add_user(db, 'inference-user')}"
    for _ in range(REFUSALS_AN_HOUR + 5):
        assert (await http.get(LOGS)).status_code == 403
    with db.session() as session:
        assert session.scalar(select(func.count()).select_from(AuditLogRow)) == REFUSALS_AN_HOUR


def test_each_user_has_a_budget_of_refusals_an_hour(admin_caller):
    moment = 0.0
    budget = Budget(2, clock=lambda: moment)
    jane = admin_caller("jane")
    assert [budget.take(jane) for _ in range(3)] == [True, True, False]
    assert budget.take(admin_caller("joe"))
    moment = 3599.0
    assert not budget.take(jane)
    moment = 3600.0
    assert budget.take(jane)


@pytest.fixture
def admin_caller():
    return lambda user_id: Caller("hearth", user_id, "admin", uuid.uuid4(), "k", f"{user_id}@example.com")


async def test_a_refusal_is_answered_when_it_cannot_be_noted(http, admin_key, db):
    http.headers["Authorization"] = f"Bearer {add_user(db, 'user')}"
    with db.session() as session:
        session.execute(text("ALTER TABLE audit_logs RENAME TO gone"))
    assert (await http.get(LOGS)).status_code == 403


class Quota(ApiModel):
    value: int = 0


class Inner(ApiModel):
    api_secret: SecretStr = write_only()
    shown: str = ""


class Outer(ApiModel):
    inner: Inner | None = None
    many: list[Inner] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


def test_write_only_values_are_found_wherever_they_are():
    inner = {"apiSecret": "s", "shown": "x"}
    sent = {
        "inner": inner,
        "many": [inner, {"api_secret": "s"}],
        "byName": {"a": inner},
        "wrapped": {"deeper": [inner]},
        "labels": {"apiSecret": "s"},
    }
    shown = json.dumps(kept(sent, Outer))
    assert '"s"' not in shown
    assert shown.count('"(not kept)"') == 6
    assert shown.count('"x"') == 4


def test_a_field_that_is_write_only_elsewhere_is_kept_where_it_is_not():
    assert "value" in WRITE_ONLY_FIELDS
    assert kept({"value": 16}, Quota) == {"value": 16}
    assert kept({"value": 16}) == {"value": "(not kept)"}


def test_an_api_key_is_masked_wherever_it_stands():
    key = generate_key()
    assert key not in json.dumps(kept({"a": key, key: [f"see {key}"]}, Quota))


def test_of_a_large_body_only_the_names_are_kept():
    assert kept({"small": 1, "large": "x" * LARGEST_BODY}) == {"small": "...", "large": "..."}


async def test_no_write_only_field_of_the_api_gets_into_the_log(api, http, db, object_store):
    """Every request body of the OpenAPI schema that has such a field is sent, whole."""
    spec = (await http.get("/openapi.json")).json()
    sent = 0
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            filled = secrets_in(body.get("schema", {}), spec["components"]["schemas"])
            if "write-only-value" not in json.dumps(filled):
                continue
            url = path.replace(":rid", "").format_map(Somewhere())
            answer = await api.request(method.upper(), url, json=filled)
            assert "write-only-value" not in answer.text, (method, path)
            sent += 1
    assert sent >= 2
    with db.session() as session:
        assert "write-only-value" not in str(session.execute(select(AuditLogRow.__table__)).all())
        lines = session.scalars(select(AuditLogRow.action)).all()
    assert "CreateSecret" in lines


class Somewhere(dict[str, str]):
    """What a path's parameters stand for."""

    def __missing__(self, name: str) -> str:
        return "hearth" if name == "account_id" else "anything"


def secrets_in(schema: dict[str, Any], known: dict[str, Any], depth: int = 0) -> Any:
    """A body of a schema with every write-only field in it, and what is required."""
    if "$ref" in schema:
        return secrets_in(known[schema["$ref"].rpartition("/")[2]], known, depth + 1)
    for choice in schema.get("anyOf", schema.get("allOf", ())):
        return secrets_in(choice, known, depth)
    if schema.get("writeOnly"):
        return "write-only-value"
    if schema.get("type") == "object" and depth < 6:
        filled = {
            name: secrets_in(inner, known, depth + 1) for name, inner in schema.get("properties", {}).items()
        }
        needed = schema.get("required", ())
        extra = {"name": "made", "keyName": "K"} if "keyName" in filled else {}
        return {
            **{
                name: value
                for name, value in filled.items()
                if name in needed or "write-only-value" in json.dumps(value)
            },
            **extra,
        }
    return {"string": "text", "integer": 1, "number": 1, "boolean": False, "array": []}.get(
        str(schema.get("type")), {}
    )


def test_old_lines_are_forgotten_some_at_a_time(db, settings):
    def count() -> int:
        with db.session() as session:
            return session.scalar(select(func.count()).select_from(AuditLogRow)) or 0

    old = now() - timedelta(days=settings.audit_log_days, minutes=1)
    with db.session() as session:
        session.add_all(line(old) for _ in range(AUDIT_LOGS_A_SWEEP + 1))
        session.add(line(old + timedelta(minutes=2)))
    context = WorkerContext(settings, db, store=None, runtime=None)
    forget_old_audit_logs(context)
    assert count() == 2
    forget_old_audit_logs(context)
    assert count() == 1


def line(create_time) -> AuditLogRow:
    return AuditLogRow(
        account_id="hearth",
        create_time=create_time,
        user_id="u",
        email="u@example.com",
        key_id="k",
        action="CreateUser",
        resource="accounts/hearth/users/u",
    )
