"""Nobody sees another account: every route, with every kind of credential, and no byte of what is theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx
import pytest
from pydantic.alias_generators import to_camel
from sqlalchemy import delete, select, update

from controlplane.app import create_app
from controlplane.auth import hash_key
from controlplane.config import Settings
from controlplane.db import Base, Database
from controlplane.resources.audit_logs.service import message_in
from controlplane.resources.tables import ApiKeyRow
from controlplane.rest.schema import ApiModel
from controlplane.storage import ObjectStore
from tests.controlplane.every_route import ANY_KEY, OPEN, Endpoint, endpoints, example
from tests.controlplane.every_table import Rows
from tests.controlplane.roles import add_user

MARKER = "zqMARKqz"
"""In every text of the account `rival`, but for names that a path may name."""
THEIRS = "theirs"
"""The id of everything of the account `rival`."""
HELD_BACK = {403, 404}
REFERENCES = {
    "model": "models",
    "base_model": "models",
    "draft_model": "models",
    "default_draft_model": "models",
    "warm_start_from": "models",
    "output_model": "models",
    "dataset": "datasets",
    "evaluation_dataset": "datasets",
    "deployment": "deployments",
    "deployment_shape": "deploymentShapes",
    "source_dataset_id": "datasets",
}
"""Fields that name resources, and of which collection."""
WITHOUT_TEXTS = {"quotas"}
FOR_NOBODY = ("no key", "a garbage key", "an expired key", "a revoked key")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"verdict_wait_seconds": 0.0})


@pytest.fixture
def rival(db: Database) -> dict[str, list[Any]]:
    """An account with a row in every table; what the rows are, by table."""
    add_user(db, "admin", "rival")
    with db.session() as session:
        Rows(session, "rival", THEIRS, email=f"{MARKER}@rival.example").fill_all(MARKER)
    return everything_of_rival(db)


@pytest.fixture
def keys(db: Database, admin_key: str) -> dict[str, str | None]:
    expired, revoked = add_user(db, "admin"), add_user(db, "admin")
    with db.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        row = update(ApiKeyRow).where(ApiKeyRow.key_hash == hash_key(expired))
        session.execute(row.values(expire_time=past))
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.key_hash == hash_key(revoked)))
    return {
        "no key": None,
        "a garbage key": "fw_garbage",
        "an expired key": expired,
        "a revoked key": revoked,
        "another account's admin": admin_key,
        "another account's inference-user": add_user(db, "inference-user"),
    }


async def test_no_route_shows_or_changes_anything_of_another_account(
    http: httpx.AsyncClient,
    settings: Settings,
    db: Database,
    object_store: ObjectStore,
    rival: dict[str, list[Any]],
    keys: dict[str, str | None],
) -> None:
    wrong = []
    for endpoint in endpoints(create_app(settings)):
        for who, key in keys.items():
            # Who is let in at all also asks for it under the account that the key is of.
            also = ("hearth",) if endpoint.parameters and who not in FOR_NOBODY else ()
            for account_id in ("rival", *also):
                answer = await ask(http, endpoint, account_id, key)
                if why := what_is_wrong(endpoint, account_id, who, answer):
                    wrong.append(f"{who}: {endpoint} of {account_id}: {why}")
    assert not wrong, "\n".join(wrong)
    assert everything_of_rival(db) == rival


async def test_no_resource_can_be_made_of_what_is_another_account_s(
    http: httpx.AsyncClient,
    settings: Settings,
    db: Database,
    object_store: ObjectStore,
    rival: dict[str, list[Any]],
    admin_key: str,
) -> None:
    http.headers["Authorization"] = f"Bearer {admin_key}"
    asked, wrong = 0, []
    for endpoint in endpoints(create_app(settings)):
        message = endpoint.message
        sent = naming_theirs(message) if message and endpoint.parameters == ["account_id"] else {}
        if "accounts/rival/" not in str(sent):
            continue
        answer = await http.request(endpoint.method, endpoint.url(account_id="hearth"), json=sent)
        asked += 1
        if not 400 <= answer.status_code < 500 or MARKER in answer.text:
            wrong.append(f"{endpoint}: {answer.status_code} {answer.text[:300]}")
    assert not wrong, "\n".join(wrong)
    assert asked >= 5
    assert everything_of_rival(db) == rival


def naming_theirs(message: type[ApiModel]) -> dict[str, Any]:
    """A body that names what is theirs wherever a resource can be named."""
    body = dict(example(message))
    for name, field in message.model_fields.items():
        inner = message_in(field.annotation)
        if name in REFERENCES:
            body[to_camel(name)] = f"accounts/rival/{REFERENCES[name]}/{THEIRS}"
        elif inner is not None and inner in (field.annotation, *get_args(field.annotation)):
            deeper = naming_theirs(inner)
            body |= {to_camel(name): deeper} if "accounts/rival/" in str(deeper) else {}
    return body


async def test_the_marker_is_where_its_owner_looks(
    http: httpx.AsyncClient, db: Database, rival: dict[str, list[Any]]
) -> None:
    """The test above cannot pass for want of something to find."""
    http.headers["Authorization"] = f"Bearer {add_user(db, 'admin', 'rival')}"
    for path in ("users", "secrets"):
        answer = await http.get(f"/v1/accounts/rival/{path}/{THEIRS}")
        assert MARKER in answer.text, path
    unmarked = {table for table, rows in rival.items() if rows and MARKER not in str(rows)}
    assert unmarked <= WITHOUT_TEXTS


async def ask(
    http: httpx.AsyncClient, endpoint: Endpoint, account_id: str, key: str | None
) -> httpx.Response:
    values = dict.fromkeys(endpoint.parameters, THEIRS) | {"account_id": account_id}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url, body = endpoint.url(**values), endpoint.body()
    return await http.request(endpoint.method, url, headers=headers, json=body)


def what_is_wrong(endpoint: Endpoint, account_id: str, who: str, answer: httpx.Response) -> str:
    status = answer.status_code
    if MARKER in answer.text or MARKER in str(answer.headers):
        return f"the answer holds the other account's data: {answer.text[:300]}"
    if endpoint.name in OPEN:
        return ""
    if who in FOR_NOBODY:
        return "" if status == 401 else f"answers {status} and not 401"
    names_account = "account_id" in endpoint.parameters
    if account_id == "rival" and names_account and not (endpoint.shows_other_accounts and status == 200):
        return "" if status in HELD_BACK else f"answers {status}, and neither 403 nor 404"
    if account_id == "hearth" and len(endpoint.parameters) > 1 and status < 300:
        return f"answers {status} for what this account does not have"
    if status >= 500:
        return f"answers {status}: {answer.text[:200]}"
    return ""


def everything_of_rival(db: Database) -> dict[str, list[Any]]:
    """All rows of the account, but for when its keys were used."""
    found = {}
    with db.session() as session:
        for table in Base.metadata.sorted_tables:
            if "account_id" not in table.c:
                continue
            columns = [column for column in table.c if column.name != "last_used"]
            query = select(*columns).where(table.c.account_id == "rival").order_by(*table.primary_key)
            found[table.name] = [tuple(row) for row in session.execute(query)]
    return found


def test_every_route_is_for_somebody(settings: Settings) -> None:
    for endpoint in endpoints(create_app(settings)):
        assert endpoint.needs_key != (endpoint.name in OPEN), str(endpoint)
        assert (endpoint.permission is None) == (endpoint.name in OPEN | ANY_KEY), str(endpoint)
