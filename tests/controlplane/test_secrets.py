"""Secrets: stored encrypted, never shown again, and rotated while the platform runs."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import stat
import subprocess
import sys

import httpx
import pytest
from pydantic import ValidationError
from sqlalchemy import String, Text, select, text

from controlplane.app import create_app
from controlplane.config import Settings
from controlplane.db import Base, import_tables
from controlplane.encryption import ENCRYPTED_COLUMNS, Cipher, EncryptionError, generate_secret_key, rotate
from controlplane.resources.secrets.schemas import LARGEST_VALUE
from controlplane.resources.tables import AuditLogRow, SecretRow
from launcher.data_dir import DataDir
from tests.controlplane.roles import add_user

SECRETS = "/v1/accounts/hearth/secrets"
VALUE = 'plain-value-{"json": "€uro"}'
MADE = {"name": "accounts/hearth/secrets/wolfram", "keyName": "WOLFRAM_API_KEY", "value": VALUE}
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings(**{**settings.model_dump(), "secret_keys": KEY})


@pytest.fixture
async def made(api: httpx.AsyncClient) -> httpx.AsyncClient:
    """The app with the secret `wolfram`."""
    answer = await api.post(SECRETS, json=MADE)
    assert answer.status_code == 200, answer.text
    return api


def stored(db, secret_id: str = "wolfram") -> str:
    with db.session() as session:
        found = session.scalar(select(SecretRow.encrypted_value).where(SecretRow.id == secret_id))
    assert found is not None
    return found


async def test_a_secret_is_created_read_listed_changed_and_deleted_without_its_value(api, db):
    shown = {"name": MADE["name"], "keyName": "WOLFRAM_API_KEY"}
    assert (await api.post(SECRETS, json=MADE)).json() == shown
    assert (await api.get(f"{SECRETS}/wolfram")).json() == shown
    assert (await api.get(SECRETS)).json() == {"secrets": [shown], "nextPageToken": "", "totalSize": 1}
    assert Cipher([KEY]).decrypt(stored(db)) == VALUE

    renamed = await api.patch(f"{SECRETS}/wolfram", json={"keyName": "WOLFRAM"})
    assert renamed.json() == {**shown, "keyName": "WOLFRAM"}
    assert Cipher([KEY]).decrypt(stored(db)) == VALUE
    await api.patch(f"{SECRETS}/wolfram", json={"keyName": "WOLFRAM", "value": "another"})
    assert Cipher([KEY]).decrypt(stored(db)) == "another"

    assert (await api.delete(f"{SECRETS}/wolfram")).json() == {}
    assert (await api.get(f"{SECRETS}/wolfram")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {**MADE, "name": "wolfram"},
        {"secret": MADE},
        {"name": "wolfram", "key_name": "WOLFRAM_API_KEY", "value": VALUE},
    ],
)
async def test_a_bare_id_a_wrapped_body_and_snake_case_are_the_same_secret(api, db, body):
    answer = await api.post(SECRETS, json=body)
    assert answer.json()["name"] == "accounts/hearth/secrets/wolfram"
    assert Cipher([KEY]).decrypt(stored(db)) == VALUE


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "name is required"),
        ({"name": "accounts/rival/secrets/x"}, "not in accounts/hearth"),
        ({"name": "accounts/hearth/models/x"}, "must be an id or accounts/{account}/secrets/{id}"),
        ({"name": "No Good"}, "must contain only lower-case letters"),
        ({"keyName": ""}, "keyName is required"),
        ({"keyName": "A\nB"}, "one line"),
        ({"keyName": "K" * 256}, "255"),
        ({"value": ""}, "value is required"),
        ({"value": "plain-value" * 10_000}, f"at most {LARGEST_VALUE}"),
        ({"value": 5}, "value"),
        ({"value": ["plain-value"]}, "value"),
        ({"value": {"plain-value": 1}}, "value"),
        ({"valeu": "plain-value"}, 'unknown field "valeu"'),
    ],
)
async def test_a_mistake_is_named_and_the_value_is_not(api, wrong, says):
    answer = await api.post(SECRETS, json={**MADE, **wrong})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert says in answer.json()["message"]
    assert "plain-value" not in answer.text


async def test_a_body_that_is_no_json_is_not_repeated(api):
    answer = await api.post(
        SECRETS, content='{"value": "plain-value', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "plain-value" not in answer.text


async def test_the_largest_value_is_kept_whole(api, db):
    largest = "€" * (LARGEST_VALUE // 3) + "x" * (LARGEST_VALUE % 3)
    assert (await api.post(SECRETS, json={**MADE, "value": largest})).status_code == 200
    assert Cipher([KEY]).decrypt(stored(db)) == largest


async def test_a_name_is_taken_once_and_never_changes(made):
    again = await made.post(SECRETS, json=MADE)
    assert (again.status_code, again.json()["code"]) == (409, 6)
    moved = await made.patch(f"{SECRETS}/wolfram", json={"name": "other", "keyName": "X"})
    assert (moved.status_code, moved.json()["message"]) == (400, "name cannot be changed")
    same = await made.patch(f"{SECRETS}/wolfram", json={"name": "wolfram", "keyName": "X"})
    assert same.json()["keyName"] == "X"


async def test_a_mask_that_names_the_value_does_not_empty_it(made, db):
    for answer in (
        await made.patch(f"{SECRETS}/wolfram?updateMask=keyName, value", json={"keyName": "X"}),
        await made.patch(f"{SECRETS}/wolfram", json={"value": ""}),
    ):
        assert answer.status_code == 400
        assert "value must not be empty" in answer.json()["message"]
    assert Cipher([KEY]).decrypt(stored(db)) == VALUE


async def test_a_new_value_is_a_new_version(made):
    first = (await made.get(f"{SECRETS}/wolfram")).headers["ETag"]
    changed = await made.patch(f"{SECRETS}/wolfram", json={"value": "new"}, headers={"If-Match": first})
    assert changed.status_code == 200
    for stale in (
        await made.patch(f"{SECRETS}/wolfram", json={"value": "newer"}, headers={"If-Match": first}),
        await made.delete(f"{SECRETS}/wolfram", headers={"If-Match": first}),
    ):
        assert (stale.status_code, stale.json()["code"]) == (412, 10)


async def test_the_value_is_in_no_log_no_answer_and_no_other_column(api, db, caplog):
    caplog.set_level(logging.DEBUG)
    answers = [
        await api.post(SECRETS, json=MADE),
        await api.post(SECRETS, json=MADE),
        await api.post(SECRETS, json={"secret": {**MADE, "name": "second"}}),
        await api.post(SECRETS, json={"secret": {**MADE, "name": "third"}, "more": 1}),
        await api.patch(f"{SECRETS}/wolfram", json={"value": VALUE}),
        await api.patch(f"{SECRETS}/wolfram?updateMask=name", json={"value": VALUE}),
        await api.get(f"{SECRETS}?readMask=value"),
        await api.get(f"{SECRETS}/wolfram?readMask=*"),
        await api.get(f'{SECRETS}?filter=value="plain"'),
        await api.get(f"{SECRETS}?orderBy=value"),
        await api.get("/v1/accounts/hearth/auditLogs"),
    ]
    assert answers[0].status_code == answers[2].status_code == 200
    assert not [answer.text for answer in answers if "plain-value" in answer.text]
    ours = [record for record in caplog.records if record.name.split(".")[0] not in ("httpx", "httpcore")]
    assert not [record.getMessage() for record in ours if "plain-value" in record.getMessage()]
    with db.session() as session:
        for table in Base.metadata.sorted_tables:
            assert "plain-value" not in str(session.execute(select(table)).all()), table.name


async def test_lists_are_not_filtered_by_what_they_do_not_show(made):
    for query in ('filter=value="plain"', "orderBy=value"):
        answer = await made.get(f"{SECRETS}?{query}")
        assert answer.status_code == 400


async def test_the_openapi_schema_has_the_value_for_writing_only(http):
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    told = [schema for name, schema in schemas.items() if re.fullmatch(r"(Create)?Secret(Request)?", name)]
    assert told
    for schema in told:
        assert schema["properties"]["value"]["writeOnly"] is True
        assert not {"example", "examples"} & schema["properties"]["value"].keys()
    listed = (await http.get("/openapi.json")).json()["components"]["schemas"]
    assert "secrets" in listed["ListSecretsResponse"]["properties"]


async def test_who_may_not_manage_secrets_sees_names_at_most(made, db):
    for role, view, manage in (
        ("user", 200, 200),
        ("contributor", 200, 403),
        ("inference-user", 403, 403),
    ):
        headers = {"Authorization": f"Bearer {add_user(db, role)}"}
        assert (await made.get(f"{SECRETS}/wolfram", headers=headers)).status_code == view
        changed = await made.patch(f"{SECRETS}/wolfram", json={"keyName": role}, headers=headers)
        assert changed.status_code == manage


async def test_another_account_s_secret_does_not_exist(made, other_key):
    headers = {"Authorization": f"Bearer {other_key}"}
    assert (await made.get(f"{SECRETS}/wolfram", headers=headers)).status_code == 404
    own = await made.post("/v1/accounts/rival/secrets", json={**MADE, "name": "wolfram"}, headers=headers)
    assert own.json()["name"] == "accounts/rival/secrets/wolfram"


async def test_without_keys_only_what_needs_them_is_refused(settings, made, db):
    app = create_app(settings.model_copy(update={"secret_keys": None}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://hearth", headers=made.headers) as api,
    ):
        for refused in (
            await api.post(SECRETS, json={**MADE, "name": "new"}),
            await api.patch(f"{SECRETS}/wolfram", json={"value": "new"}),
        ):
            assert (refused.status_code, refused.json()["code"]) == (400, 9)
            assert "HEARTH_SECRET_KEYS" in refused.json()["message"]
        assert (await api.get(f"{SECRETS}/wolfram")).status_code == 200
        assert (await api.patch(f"{SECRETS}/wolfram", json={"keyName": "X"})).status_code == 200
        assert (await api.delete(f"{SECRETS}/wolfram")).status_code == 200


def test_what_a_lost_key_encrypted_is_refused_without_saying_what_it_is():
    token = Cipher([generate_secret_key()]).encrypt("plain-value")
    with pytest.raises(EncryptionError, match="HEARTH_SECRET_KEYS") as refused:
        Cipher([KEY]).decrypt(token)
    assert token not in str(refused.value)
    assert KEY not in str(refused.value)


def test_the_first_key_encrypts_and_all_decrypt():
    old, new = generate_secret_key(), generate_secret_key()
    before = Cipher([old]).encrypt("x")
    both = Cipher([new, old])
    assert both.decrypt(before) == "x"
    assert not both.is_current(before)
    assert both.is_current(both.encrypt("x"))


@pytest.mark.parametrize("separator", [",", ", ", "\n", " "])
def test_keys_are_separated_by_commas_or_lines(settings, separator):
    other = generate_secret_key()
    chosen = Settings(**{**settings.model_dump(), "secret_keys": f"{KEY}{separator}{other}\n"})
    assert Cipher.from_settings(chosen).decrypt(Cipher([other]).encrypt("x")) == "x"


@pytest.mark.parametrize("wrong", ["short", "€" * 44, "A" * 43, KEY[:-1]])
def test_a_wrong_key_is_one_clear_line_without_it(settings, wrong):
    with pytest.raises(ValidationError) as refused:
        Settings(**{**settings.model_dump(), "secret_keys": f"{KEY},{wrong}"})
    assert "key 2 of 2" in str(refused.value)
    assert wrong not in str(refused.value)
    assert KEY not in str(refused.value)


def test_every_encrypted_column_exists_and_every_cipher_text_is_in_one():
    import_tables()
    for table_name, column in ENCRYPTED_COLUMNS:
        table = Base.metadata.tables[table_name]
        assert isinstance(table.c[column].type, String | Text) or table.c[column].type.impl
        assert "uid" in table.c


async def test_a_rotation_may_be_interrupted_and_repeated_and_tells_what_it_cannot_read(api, db):
    new = generate_secret_key()
    for number in range(7):
        await api.post(SECRETS, json={**MADE, "name": f"s{number}"})
    lost = Cipher([generate_secret_key()]).encrypt("lost")
    with db.session() as session:
        session.execute(text("UPDATE secrets SET encrypted_value = :v WHERE id = 's3'"), {"v": lost})
        session.execute(
            text("UPDATE secrets SET encrypted_value = :v WHERE id = 's5'"), {"v": Cipher([new]).encrypt("5")}
        )
        changed = session.scalars(select(SecretRow.update_time).order_by(SecretRow.id)).all()

    done = rotate(db, Cipher([new, KEY]), batch=2)
    assert (done.changed, done.current, len(done.failed)) == (5, 1, 1)
    assert done.failed[0].startswith("secrets.encrypted_value ")
    only_new = Cipher([new])
    assert only_new.decrypt(stored(db, "s0")) == VALUE
    assert only_new.decrypt(stored(db, "s5")) == "5"
    assert stored(db, "s3") == lost
    with db.session() as session:
        assert session.scalars(select(SecretRow.update_time).order_by(SecretRow.id)).all() == changed

    again = rotate(db, Cipher([new, KEY]), batch=2)
    assert (again.changed, again.current, len(again.failed)) == (0, 6, 1)


async def test_the_operator_rotates_with_a_command(api, db, settings):
    await api.post(SECRETS, json=MADE)
    new = generate_secret_key()
    lost = run_admin(settings, new, "rotate-secrets")
    assert lost.returncode == 1
    assert "0 encrypted with the first key now; 0 were already; 1 cannot be read" in lost.stdout
    assert "secrets.encrypted_value" in lost.stderr
    done = run_admin(settings, f"{new},{KEY}", "rotate-secrets")
    assert done.returncode == 0, done.stderr
    assert "may be removed" in done.stdout
    assert Cipher([new]).decrypt(stored(db)) == VALUE
    assert new not in done.stdout + done.stderr + lost.stdout + lost.stderr


def test_a_rotation_without_keys_and_with_a_wrong_one_is_one_line(settings):
    unset = run_admin(settings, "", "rotate-secrets")
    assert (unset.returncode, unset.stderr) == (1, "hearth: HEARTH_SECRET_KEYS: is not set\n")
    wrong = run_admin(settings, "not-a-key", "rotate-secrets")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("hearth: HEARTH_SECRET_KEYS: key 1 of 1 is not")
    assert "not-a-key" not in wrong.stderr
    made = run_admin(settings, "", "create-secret-key").stdout.strip()
    assert Cipher([made]).decrypt(Cipher([made]).encrypt("x")) == "x"


def run_admin(settings: Settings, keys: str, command: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "HEARTH_DATABASE_URL": settings.database_url,
        "HEARTH_REDIS_URL": settings.redis_url,
        "HEARTH_S3_ENDPOINT": settings.s3_endpoint,
        "HEARTH_S3_ACCESS_KEY": settings.s3_access_key,
        "HEARTH_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "HEARTH_SECRET_KEYS": keys,
    }
    return subprocess.run(
        [sys.executable, "-m", "launcher.main", "admin", command],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )


def test_a_data_directory_makes_its_key_once_for_its_owner_only(tmp_path):
    data_dir = DataDir.at(tmp_path)
    key = data_dir.secret_keys()
    assert data_dir.secret_keys() == key
    assert stat.S_IMODE(data_dir.secret_keys_file.stat().st_mode) == 0o600
    assert Cipher([key]).decrypt(Cipher([key]).encrypt("x")) == "x"


async def test_the_audit_log_has_the_secret_s_name_and_not_its_value(made, db):
    with db.session() as session:
        line = session.scalar(select(AuditLogRow).where(AuditLogRow.action == "CreateSecret"))
    assert line.resource == MADE["name"]
    assert json.loads(json.dumps(line.request)) == {
        "name": MADE["name"],
        "keyName": "WOLFRAM_API_KEY",
        "value": "(not kept)",
    }
