"""The rules that every endpoint shares: spelling, masks, pages, limits and the shape of errors."""

import json

import pytest

USERS = "/v1/accounts/hearth/users"


async def test_input_takes_both_spellings_and_output_is_camel_case(api):
    made = await api.post(f"{USERS}?userId=a", json={"email": "a@x.org", "display_name": "A"})
    assert made.json()["displayName"] == "A"
    assert (
        await api.post(f"{USERS}?userId=b", json={"email": "b@x.org", "displayName": "B"})
    ).status_code == 200


async def test_unset_scalars_are_written_and_keys_come_sorted(api):
    text = (await api.get(f"{USERS}/admin")).text
    message = json.loads(text)
    assert message["displayName"] == ""
    assert message["status"] == {"code": "OK", "message": ""}
    assert list(message) == sorted(message)


async def test_an_unknown_field_is_named(api):
    answer = await api.post(USERS, json={"email": "a@x.org", "colour": "red"})
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert answer.json()["message"] == 'unknown field "colour"'


async def test_output_only_fields_are_ignored_when_sent(api):
    made = (await api.post(f"{USERS}?userId=a", json={"email": "a@x.org", "state": "DELETING"})).json()
    assert made["state"] == "READY"


@pytest.mark.parametrize("bad", ["Upper", "-a", "a-", "a_b", "a" * 64, "é"])
async def test_a_bad_id_is_named_with_its_rule(api, bad):
    answer = await api.post(f"{USERS}?userId={bad}", json={"email": "a@x.org"})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert "userId" in answer.json()["message"]


async def test_a_second_create_of_an_id_is_already_exists(api):
    await api.post(f"{USERS}?userId=a", json={"email": "a@x.org"})
    answer = await api.post(f"{USERS}?userId=a", json={"email": "b@x.org"})
    assert (answer.status_code, answer.json()["code"]) == (409, 6)


async def test_a_patch_changes_the_keys_present(api):
    await api.post(f"{USERS}?userId=a", json={"email": "a@x.org", "displayName": "A", "role": "user"})
    changed = (await api.patch(f"{USERS}/a", json={"role": "admin"})).json()
    assert (changed["role"], changed["displayName"]) == ("admin", "A")


async def test_a_patch_with_a_mask_changes_just_what_it_names(api):
    await api.post(f"{USERS}?userId=a", json={"email": "a@x.org", "displayName": "A"})
    kept = await api.patch(f"{USERS}/a?updateMask=role", json={"displayName": "B", "role": "user"})
    assert kept.json()["displayName"] == "A"
    cleared = await api.patch(f"{USERS}/a?updateMask=display_name", json={})
    assert cleared.json()["displayName"] == ""
    unknown = await api.patch(f"{USERS}/a?updateMask=colour", json={})
    assert unknown.status_code == 400


async def test_a_read_mask_keeps_only_what_it_names(api):
    assert (await api.get(f"{USERS}/admin?readMask=name,createTime")).json().keys() == {"name", "createTime"}
    listed = (await api.get(f"{USERS}?readMask=name")).json()
    assert listed["users"] == [{"name": "accounts/hearth/users/admin"}]


async def test_pages_cover_everything_once_and_stay_stable_under_inserts(api):
    for number in range(5):
        await api.post(f"{USERS}?userId=u{number}", json={"email": f"u{number}@x.org"})
    seen, token = [], ""
    while True:
        page = (await api.get(USERS, params={"pageSize": 2, "pageToken": token})).json()
        seen += [user["name"].rsplit("/", 1)[1] for user in page["users"]]
        if len(seen) == 2:
            await api.post(f"{USERS}?userId=aaa", json={"email": "aaa@x.org"})
        token = page["nextPageToken"]
        if not token:
            break
    assert seen == ["admin", "u0", "u1", "u2", "u3", "u4"]
    assert page["totalSize"] == 7


async def test_a_page_token_of_another_list_is_refused(api):
    for number in range(2):
        await api.post(f"{USERS}?userId=u{number}", json={"email": f"u{number}@x.org"})
    token = (await api.get(f"{USERS}?pageSize=1")).json()["nextPageToken"]
    for path, bad in (("/v1/accounts/hearth/datasets", token), (USERS, "nonsense"), (USERS, "WzEsMl0")):
        answer = await api.get(path, params={"pageToken": bad})
        assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_what_lists_cannot_do_yet_is_refused_by_name(api):
    for query in ("filter=state%3DREADY", "orderBy=create_time", "pageSize=-1"):
        assert (await api.get(f"{USERS}?{query}")).status_code == 400


async def test_malformed_deep_and_huge_bodies_are_refused(api, settings):
    cases = [
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"email":"' + b"a" * (settings.request_body_limit + 1) + b'"}', 413),
    ]
    for body, status in cases:
        answer = await api.post(USERS, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, body[:20]
        assert set(answer.json()) == {"code", "message", "details"}


async def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(api, settings):
    async def endless():
        for _ in range(settings.request_body_limit // 65536 + 2):
            yield b"a" * 65536

    answer = await api.post(USERS, content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


async def test_wrong_paths_and_methods_have_the_same_shape(api):
    missing = await api.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, 5)
    wrong = await api.put(f"{USERS}/admin", json={})
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
