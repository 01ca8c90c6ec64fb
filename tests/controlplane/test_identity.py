"""Accounts, users, keys: who may call, and what they see."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from controlplane.resources.tables import ApiKeyRow

USERS = "/v1/accounts/hearth/users"


async def test_a_key_answers_with_its_account(api):
    answer = await api.get("/verifyApiKey")
    assert answer.status_code == 200
    assert answer.headers["x-fireworks-account-id"] == "hearth"


async def test_a_key_is_taken_from_x_api_key_too(http, admin_key):
    assert (await http.get("/verifyApiKey", headers={"X-Api-Key": admin_key})).status_code == 200


async def test_no_key_a_wrong_key_and_a_malformed_header_are_unauthenticated(http):
    for headers in ({}, {"Authorization": "Bearer fw_wrong"}, {"Authorization": "Basic eA=="}):
        answer = await http.get("/v1/accounts", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == 16
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_every_route_but_the_probes_asks_for_a_key(http):
    spec = (await http.get("/openapi.json")).json()
    for path, methods in spec["paths"].items():
        url = path.replace("{", "").replace("}", "").replace(":rid", "")
        for method in methods:
            answer = await http.request(method.upper(), url)
            assert answer.status_code == 401, f"{method} {path}"


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
