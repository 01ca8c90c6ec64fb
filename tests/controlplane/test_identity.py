"""Accounts, users, keys: who may call, and what they see."""

import asyncio
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest
from sqlalchemy import delete, select, text, update

from controlplane.auth import USE_NOTED_EVERY, hash_key
from controlplane.permissions import ROLES
from controlplane.resources.accounts.states import SUSPEND_STATES
from controlplane.resources.tables import AccountRow, ApiKeyRow, UserRow
from tests.controlplane.roles import add_user

USERS = "/v1/accounts/hearth/users"


async def test_a_key_answers_with_its_account(api):
    answer = await api.get("/verifyApiKey")
    assert answer.status_code == 200
    assert answer.headers["x-fireworks-account-id"] == "hearth"


async def test_a_key_answers_with_whose_it_is_too(api, db):
    headers = (await api.get("/verifyApiKey")).headers
    assert (headers["x-fireworks-user-id"], headers["x-fireworks-role"]) == ("admin", "admin")
    with db.session() as session:
        used = session.scalar(select(ApiKeyRow.key_id).where(ApiKeyRow.last_used.is_not(None)))
    assert headers["x-fireworks-api-key-id"] == used


async def test_the_version_is_told_to_everybody_and_nothing_else_is(http):
    answer = await http.get("/version")
    assert answer.json() == {"version": version("hearth")}


async def test_a_key_is_taken_from_x_api_key_too(http, admin_key):
    assert (await http.get("/verifyApiKey", headers={"X-Api-Key": admin_key})).status_code == 200


async def test_no_key_a_wrong_key_and_a_malformed_header_are_unauthenticated(http):
    for headers in ({}, {"Authorization": "Bearer fw_wrong"}, {"Authorization": "Basic eA=="}):
        answer = await http.get("/v1/accounts", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == 16
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_expired_key_is_refused(api, http, db):
    made = await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": {"displayName": "short"}})
    with db.session() as session:
        row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.key_id == made.json()["keyId"]))
        row.expire_time = datetime.now(UTC) - timedelta(seconds=1)
    answer = await http.get("/verifyApiKey", headers={"Authorization": f"Bearer {made.json()['key']}"})
    assert answer.status_code == 401
    assert "expired" in answer.json()["message"]


async def test_a_key_is_shown_once_and_stored_as_a_hash(api, db):
    made = (await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": {"displayName": "ci"}})).json()
    assert made["key"].startswith(made["prefix"])
    listed = (await api.get(f"{USERS}/admin/apiKeys")).json()["apiKeys"]
    assert made["keyId"] in [key["keyId"] for key in listed]
    assert {key["key"] for key in listed} == {""}
    with db.session() as session:
        stored = session.scalars(select(ApiKeyRow)).all()
    assert all(made["key"] not in str(vars(row)) for row in stored)


async def test_a_deleted_key_stops_working(api):
    made = (await api.post("/v1/accounts/hearth/apiKeys", json={"apiKey": {}})).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert (await api.get("/verifyApiKey", headers=headers)).status_code == 200
    deleted = await api.post("/v1/accounts/hearth/apiKeys:delete", json={"keyId": made["keyId"]})
    assert deleted.json() == {}
    assert (await api.get("/verifyApiKey", headers=headers)).status_code == 401


async def test_a_user_is_named_after_the_email_unless_an_id_is_given(api):
    made = (await api.post(USERS, json={"email": "Jo.Doe@example.com", "role": "user"})).json()
    assert made["name"] == "accounts/hearth/users/jo-doe"
    named = (await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com"})).json()
    assert named["name"] == "accounts/hearth/users/jane"
    assert named["role"] == "user"


async def test_an_ordinary_user_manages_no_users_and_sees_no_foreign_keys(api, http):
    await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com", "role": "user"})
    key = (await api.post(f"{USERS}/jane/apiKeys", json={"apiKey": {}})).json()["key"]
    http.headers["Authorization"] = f"Bearer {key}"
    for answer in (
        await http.post(USERS, json={"email": "x@example.com"}),
        await http.patch(f"{USERS}/jane", json={"role": "admin"}),
        await http.delete(f"{USERS}/admin"),
        await http.get(f"{USERS}/admin/apiKeys"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, 7)
    assert (await http.get(f"{USERS}/jane/apiKeys")).status_code == 200


async def test_the_last_admin_stays(api):
    for answer in (
        await api.delete(f"{USERS}/admin"),
        await api.patch(f"{USERS}/admin", json={"role": "user"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, 9)
        assert "last admin" in answer.json()["message"]


async def test_another_account_does_not_exist(api, other_key):
    for path in ("", "/users", "/users/admin", "/models", "/datasets", "/deployments", "/fineTuningJobs"):
        answer = await api.get(f"/v1/accounts/rival{path}")
        if path == "/models":
            assert answer.json()["models"] == []
        else:
            assert (answer.status_code, answer.json()["code"]) == (404, 5), path
    assert [a["name"] for a in (await api.get("/v1/accounts?pageSize=2")).json()["accounts"]] == [
        "accounts/hearth"
    ]


@pytest.mark.parametrize("role", ROLES)
async def test_a_user_has_any_of_the_four_roles(api, role):
    made = await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com", "role": role})
    assert made.json()["role"] == role
    other = "user" if role == "admin" else "admin"
    assert (await api.patch(f"{USERS}/jane", json={"role": other})).json()["role"] == other


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"role": "custom"}, "role custom is not supported"),
        ({"role": "custom", "permissionPreset": "x"}, "permissionPreset is not supported"),
        ({"role": "owner"}, "none of admin, user, contributor, inference-user"),
        ({"email": "nobody"}, "not an e-mail address"),
        ({"email": ""}, "not an e-mail address"),
        ({"email": "a b@example.com"}, "not an e-mail address"),
        ({"email": "a@b@example.com"}, "not an e-mail address"),
        ({"displayName": "x" * 64}, "63"),
    ],
)
async def test_what_a_user_cannot_be_is_refused_by_name(api, wrong, says):
    refused = await api.post(USERS, json={"email": "jane@example.com", **wrong})
    assert (refused.status_code, refused.json()["code"]) == (400, 3)
    assert says in refused.json()["message"]


async def test_older_clients_fields_are_taken_and_have_no_effect(api):
    older = {"firstName": "Jane", "lastName": "Doe", "statedRole": "engineer"}
    made = await api.post(USERS, json={"email": "jane@example.com", **older})
    assert made.status_code == 200
    assert not older.keys() & made.json().keys()
    changed = await api.patch(f"{USERS}/jane", json={"displayName": "Jane", **older})
    assert changed.json()["displayName"] == "Jane"


async def test_an_address_is_one_user_s_however_it_is_written(api):
    await api.post(f"{USERS}?userId=jane", json={"email": "Jane@Example.com"})
    again = await api.post(f"{USERS}?userId=other", json={"email": "jane@example.COM"})
    assert (again.status_code, again.json()["code"]) == (409, 6)
    assert (await api.get(f"{USERS}/jane")).json()["email"] == "Jane@Example.com"


async def test_two_people_of_the_same_name_get_ids_of_their_own(api):
    first = (await api.post(USERS, json={"email": "jo@example.com"})).json()["name"]
    second = (await api.post(USERS, json={"email": "jo@example.org"})).json()["name"]
    assert first == "accounts/hearth/users/jo"
    assert second.startswith("accounts/hearth/users/jo-")


async def test_only_the_role_and_the_display_name_of_a_user_change(api):
    await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com"})
    for fixed in ({"email": "new@example.com"}, {"serviceAccount": True}):
        refused = await api.patch(f"{USERS}/jane", json=fixed)
        assert refused.status_code == 400
        assert "cannot be changed" in refused.json()["message"]
    renamed = await api.patch(f"{USERS}/jane", json={"name": "accounts/hearth/users/x", "displayName": "J"})
    assert renamed.json()["name"] == "accounts/hearth/users/jane"
    same = await api.patch(f"{USERS}/jane", json={"email": "jane@example.com", "role": "user"})
    assert same.status_code == 200


async def test_a_service_account_needs_no_address(api):
    made = await api.post(f"{USERS}?userId=ci", json={"serviceAccount": True, "displayName": "CI"})
    assert made.json()["email"] == "ci@hearth.sa.fireworks"
    assert made.json()["serviceAccount"] is True
    unnamed = (await api.post(USERS, json={"serviceAccount": True})).json()
    assert unnamed["email"] == unnamed["name"].rpartition("/")[2] + "@hearth.sa.fireworks"


async def test_keys_of_a_service_account_are_made_by_admins_only(api, http):
    await api.post(f"{USERS}?userId=ci", json={"serviceAccount": True, "role": "user"})
    made = (await api.post(f"{USERS}/ci/apiKeys", json={"apiKey": {}})).json()
    http.headers["Authorization"] = f"Bearer {made['key']}"
    for path in (f"{USERS}/ci/apiKeys", "/v1/accounts/hearth/apiKeys"):
        refused = await http.post(path, json={"apiKey": {}})
        assert (refused.status_code, refused.json()["code"]) == (403, 7)
    assert [key["keyId"] for key in (await http.get(f"{USERS}/ci/apiKeys")).json()["apiKeys"]] == [
        made["keyId"]
    ]


async def test_a_service_account_is_not_the_last_admin(api):
    await api.post(f"{USERS}?userId=ci", json={"serviceAccount": True, "role": "admin"})
    for refused in (
        await api.delete(f"{USERS}/admin"),
        await api.patch(f"{USERS}/admin", json={"role": "user"}),
    ):
        assert "last admin" in refused.json()["message"]
    assert (await api.delete(f"{USERS}/ci")).status_code == 200


async def test_two_admins_who_demote_each_other_at_once_leave_one(api, http, db):
    second = add_user(db, "admin")
    headers = {"Authorization": f"Bearer {second}"}
    answers = await asyncio.gather(
        api.patch(f"{USERS}/the-admin", json={"role": "user"}),
        http.patch(f"{USERS}/admin", json={"role": "user"}, headers=headers),
    )
    assert sorted(answer.status_code for answer in answers)[0] == 200
    with db.session() as session:
        admins = session.scalars(
            select(UserRow.id).where(UserRow.role == "admin", UserRow.account_id == "hearth")
        ).all()
    assert len(admins) == 1


async def test_a_role_change_takes_effect_at_once(api, http, db):
    headers = {"Authorization": f"Bearer {add_user(db, 'inference-user')}"}
    models = "/v1/accounts/hearth/models"
    assert (await http.get(f"{USERS}", headers=headers)).status_code == 200
    assert (await http.post(models, json={"modelId": "m"}, headers=headers)).status_code == 403
    await api.patch(f"{USERS}/the-inference-user", json={"role": "admin"})
    assert (await http.post(USERS, json={"email": "new@example.com"}, headers=headers)).status_code == 200
    await api.delete(f"{USERS}/the-inference-user")
    assert (await http.get(USERS, headers=headers)).status_code == 401


async def test_a_user_that_was_changed_meanwhile_is_not_deleted(api):
    made = await api.post(f"{USERS}?userId=jane", json={"email": "jane@example.com"})
    await api.patch(f"{USERS}/jane", json={"displayName": "Jane"})
    stale = await api.delete(f"{USERS}/jane", headers={"If-Match": made.headers["ETag"]})
    assert stale.status_code == 412


async def test_a_key_has_annotations_an_end_and_is_shown_to_nobody_s_cache(api):
    asked = {"displayName": "ci", "annotations": {"team": "a"}, "expireTime": "2999-01-01T00:00:00Z"}
    made = await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": asked})
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert {name: key[name] for name in ("displayName", "annotations", "secure", "email")} == {
        "displayName": "ci",
        "annotations": {"team": "a"},
        "secure": True,
        "email": "admin@localhost",
    }
    assert key["expireTime"].startswith("2999-01-01")
    assert key["key"].startswith(key["prefix"])
    listed = (await api.get(f"{USERS}/admin/apiKeys?filter=annotations.team=a")).json()["apiKeys"]
    assert [one["keyId"] for one in listed] == [key["keyId"]]
    past = await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": {"expireTime": "2020-01-01T00:00:00Z"}})
    assert past.status_code == 400


async def test_a_key_is_made_with_limits_of_its_own(api):
    limits = {"requestsPerMinute": 60, "tokensPerMinute": 10_000, "concurrentRequests": 4}
    made = (await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": limits})).json()
    assert {name: made[name] for name in limits} == limits
    listed = (await api.get(f"{USERS}/admin/apiKeys?filter=requestsPerMinute=60")).json()["apiKeys"]
    assert [one["keyId"] for one in listed] == [made["keyId"]]
    assert {name: listed[0][name] for name in limits} == limits
    for wrong in (0, -1, "many", 10**10):
        answer = await api.post(f"{USERS}/admin/apiKeys", json={"apiKey": {"tokensPerMinute": wrong}})
        assert answer.status_code == 400
        assert "tokensPerMinute" in answer.json()["message"]


async def test_an_admin_lists_and_deletes_everybody_s_keys_and_others_their_own(api, http, db):
    own = {"Authorization": f"Bearer {add_user(db, 'user')}"}
    of_account = "/v1/accounts/hearth/apiKeys"
    everybody = (await api.get(of_account)).json()["apiKeys"]
    assert {key["email"] for key in everybody} == {"admin@localhost", "the-user@hearth.example"}
    [mine] = (await http.get(of_account, headers=own)).json()["apiKeys"]
    assert mine["email"] == "the-user@hearth.example"
    admins = next(key["keyId"] for key in everybody if key["email"] == "admin@localhost")
    refused = await http.post(f"{of_account}:delete", json={"keyId": admins}, headers=own)
    assert refused.status_code == 404
    assert (await api.post(f"{of_account}:delete", json={"keyId": mine["keyId"]})).json() == {}
    assert (await http.get(of_account, headers=own)).status_code == 401


async def test_the_use_of_a_key_is_noted_at_most_once_a_minute(api, db, admin_key):
    def last_used():
        with db.session() as session:
            return session.scalar(
                select(ApiKeyRow.last_used).where(ApiKeyRow.key_hash == hash_key(admin_key))
            )

    assert last_used() is None
    await api.get("/verifyApiKey")
    first = last_used()
    assert first is not None
    await api.get("/verifyApiKey")
    assert last_used() == first
    with db.session() as session:
        session.execute(update(ApiKeyRow).values(last_used=first - USE_NOTED_EVERY * 2))
    await api.get("/verifyApiKey")
    assert last_used() > first
    [shown] = (await api.get(f"{USERS}/admin/apiKeys")).json()["apiKeys"]
    assert shown["lastUsed"]


async def test_nobody_waits_to_note_the_use_of_a_key(api, db, admin_key):
    with db.session() as session:
        session.execute(text("SELECT uid FROM api_keys FOR UPDATE"))
        answer = await asyncio.wait_for(api.get("/verifyApiKey"), 20)
    assert answer.status_code == 200
    with db.session() as session:
        assert session.scalars(select(ApiKeyRow.last_used)).all() == [None]


async def test_an_account_shows_why_it_is_suspended(api, db):
    shown = (await api.get("/v1/accounts/hearth")).json()
    assert shown["suspendState"] == "UNSUSPENDED"
    assert shown["accountType"] == "ENTERPRISE"
    assert shown["state"] == "READY"
    for state in SUSPEND_STATES:
        with db.session() as session:
            session.execute(update(AccountRow).where(AccountRow.id == "hearth").values(suspend_state=state))
        assert (await api.get("/v1/accounts/hearth")).json()["suspendState"] == state
        assert (await api.get(f"/v1/accounts?filter=suspend_state={state}")).json()["totalSize"] == 1


async def test_accounts_are_not_made_or_changed_through_the_api(api):
    for answer in (
        await api.post("/v1/accounts", json={}),
        await api.patch("/v1/accounts/hearth", json={"displayName": "x"}),
        await api.delete("/v1/accounts/hearth"),
    ):
        assert answer.status_code == 405


async def test_a_key_deleted_in_the_database_is_refused_by_the_next_request(api, db, admin_key):
    assert (await api.get("/verifyApiKey")).status_code == 200
    with db.session() as session:
        session.execute(delete(ApiKeyRow))
    assert (await api.get("/verifyApiKey")).status_code == 401
