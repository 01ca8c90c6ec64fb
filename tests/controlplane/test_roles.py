"""The table of permissions.py, cell by cell, on every route of the app."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from controlplane.app import create_app
from controlplane.config import Settings
from controlplane.db import Base, Database
from controlplane.errors import Code
from controlplane.permissions import CONTRIBUTOR, PERMISSIONS, ROLES, Grant
from controlplane.storage import ObjectStore
from tests.controlplane.every_route import Endpoint, endpoints
from tests.controlplane.every_table import Rows
from tests.controlplane.roles import add_user

OWNERS_PERMISSIONS = {"resources.change", "keys.manage"}
"""Those that the table may grant for what is one's own."""
TABLES = {
    "supervised_fine_tuning_jobs": "fine_tuning_jobs",
    "dpo_jobs": "fine_tuning_jobs",
    "versions": "deployment_shape_versions",
}
"""Where a collection's rows are, if not in the table of its name."""
BODIES = {
    "get_upload_endpoint": {"filenameToSize": {"config.json": 2, "data.jsonl": 2}},
    "prepare_model": {"precision": "FP16"},
}
"""What is asked, where the smallest body is refused before anybody looks at the resource."""
STATES = {
    "upload": {"state": "UPLOADING"},
    "undelete_deployment": {
        "state": "DELETED",
        "delete_time": datetime(2026, 1, 1, tzinfo=UTC),
        "purge_time": datetime(2999, 1, 1, tzinfo=UTC),
    },
}
"""What a resource has to be like for the request to get as far as its owner."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"verdict_wait_seconds": 0.0})


@pytest.fixture
def keys(db: Database, admin_key: str) -> dict[str, str]:
    return {role: add_user(db, role) for role in ROLES}


async def ask(http: httpx.AsyncClient, endpoint: Endpoint, key: str, **values: str) -> httpx.Response:
    names = dict.fromkeys(endpoint.parameters, "absent") | {"account_id": "hearth", **values}
    headers = {"Authorization": f"Bearer {key}"}
    sent: dict[str, Any] = {"json": BODIES.get(endpoint.name, endpoint.body())}
    if endpoint.name == "upload":
        sent = {"files": {"file": ("data.jsonl", b"{}")}}
    return await http.request(endpoint.method, endpoint.url(**names), headers=headers, **sent)


def is_refused(answer: httpx.Response) -> bool:
    if answer.status_code == 403:
        assert answer.json()["code"] == 7
    return answer.status_code == 403


def test_the_table_grants_what_is_one_s_own_only_where_something_can_be():
    for permission in PERMISSIONS.values():
        granted = {permission.grant(role) for role in ROLES}
        assert Grant.OWN not in granted or permission.name in OWNERS_PERMISSIONS
        assert permission.grant("admin") is Grant.YES
        assert permission.grant("no-such-role") is Grant.NO


async def test_every_route_refuses_the_roles_that_the_table_refuses_and_no_other(
    http: httpx.AsyncClient, settings: Settings, object_store: ObjectStore, keys: dict[str, str]
):
    wrong = []
    for endpoint in endpoints(create_app(settings)):
        if endpoint.permission is None:
            continue
        for role, key in keys.items():
            own = {"user_id": f"the-{role}"} if endpoint.permission.name == "keys.manage" else {}
            answer = await ask(http, endpoint, key, **own)
            expected = endpoint.permission.grant(role) is Grant.NO
            if is_refused(answer) != expected or answer.status_code in (401, 500):
                wrong.append(f"{role}: {endpoint}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_only_admins_reach_the_keys_of_others(
    http: httpx.AsyncClient, settings: Settings, keys: dict[str, str]
):
    asked = 0
    for endpoint in endpoints(create_app(settings)):
        if endpoint.permission is not PERMISSIONS["keys.manage"] or "user_id" not in endpoint.parameters:
            continue
        for role, key in keys.items():
            answer = await ask(http, endpoint, key, user_id="admin")
            assert is_refused(answer) == (role != "admin"), f"{role}: {endpoint}: {answer.text}"
            asked += 1
    assert asked >= 3 * len(ROLES)


async def test_a_contributor_changes_own_resources_and_not_others(
    http: httpx.AsyncClient, settings: Settings, db: Database, object_store: ObjectStore, keys: dict[str, str]
):
    wrong = []
    email = f"the-{CONTRIBUTOR}@hearth.example"
    for endpoint in endpoints(create_app(settings)):
        if endpoint.permission is not PERMISSIONS["resources.change"]:
            continue
        for creator in (email, "somebody@hearth.example"):
            row_id = make_resource(db, endpoint, creator)
            values = {name: row_id for name in endpoint.parameters if name != "account_id"}
            answer = await ask(http, endpoint, keys[CONTRIBUTOR], **values)
            if answer.json().get("code") == Code.UNIMPLEMENTED.number:
                continue  # nobody can do this
            # The row is too bare for all of them to end well; whose it is, is seen before.
            if is_refused(answer) != (creator != email) or answer.status_code in (401, 404):
                wrong.append(f"{endpoint} of {creator}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


def make_resource(db: Database, endpoint: Endpoint, created_by: str) -> str:
    """The id of a new resource of the kind that the endpoint changes; of its parents too."""
    table = Base.metadata.tables[TABLES.get(endpoint.table, endpoint.table)]
    row_id = f"r{uuid.uuid4().hex[:12]}"
    collection = endpoint.route.path.split("/")[4]
    values = {"created_by": created_by, "collection": collection, "shape_id": row_id, "number": 1}
    with db.session() as session:
        Rows(session, "hearth", row_id, **values, **STATES.get(endpoint.name, {})).make(table)
    return row_id
