"""The rules that every endpoint shares: spelling, masks, pages, limits and the shape of errors."""

import asyncio
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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"email":"a@x.org","email":"b@x.org"}', "twice"),
        ('{"email":"a@x.org","displayName":"\\u0000"}', "NUL"),
        ('{"email":"a@x.org","displayName":"\\ud800"}', "surrogate"),
        ('{"email":"a@x.org","\\ud800":1}', "surrogate"),
        ('{"email":"a@x.org","displayName":"a","display_name":"b"}', "display_name"),
        ('{"email":"a@x.org","serviceAccount":1}', "serviceAccount"),
        ('{"email":"a@x.org","serviceAccount":"yes"}', "serviceAccount"),
        ('{"email":true}', "email"),
        ('{"email":NaN}', "NaN"),
        ('{"email":1e999}', "email"),
        ('{"email":' + "9" * 5000 + "}", ""),
    ],
)
async def test_json_that_protobuf_would_refuse_is_refused(api, body, words):
    answer = await api.post(USERS, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("minReplicaCount", True),
        ("minReplicaCount", 2**40),
        ("minReplicaCount", 10**400),
        ("minReplicaCount", -1),
        ("minReplicaCount", "1_0"),
        ("minReplicaCount", 1.5),
        ("annotations", {"a": True}),
        ("annotations", {"a": "x" * 1001}),
    ],
)
async def test_numbers_and_texts_out_of_their_range_are_refused(api, field, value):
    answer = await api.post("/v1/accounts/hearth/deployments", json={"baseModel": "m", field: value})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert field in answer.json()["message"]


async def test_64_bit_integers_come_as_numbers_or_strings_but_not_as_booleans(api):
    await api.post("/v1/accounts/hearth/datasets", json={"datasetId": "d", "dataset": {"exampleCount": "7"}})
    path = "/v1/accounts/hearth/datasets/d:getUploadEndpoint"
    for size, status in ((5, 200), ("5", 200), (True, 400), ("5.5", 400), (2**63, 400), (-1, 400)):
        answer = await api.post(path, json={"filenameToSize": {"a.jsonl": size}})
        assert answer.status_code == status, size
    refused = await api.post(path, json={"filenameToSize": {"a.jsonl": 5}, "enableResumableUpload": True})
    assert (refused.status_code, "enableResumableUpload" in refused.text) == (400, True)


async def test_null_puts_a_field_to_its_default(api):
    made = await api.post(f"{USERS}?userId=a", json={"email": "a@x.org", "displayName": None, "role": None})
    assert made.status_code == 200, made.text
    await api.patch(f"{USERS}/a", json={"displayName": "A"})
    assert (await api.patch(f"{USERS}/a", json={"displayName": None})).json()["displayName"] == ""


@pytest.mark.parametrize("query", ["colour=red", "pageTokn=x", "readMask=colour", "pageToken=WyJcdWQ4MDAiXQ"])
async def test_a_query_that_means_nothing_is_refused(api, query):
    answer = await api.get(f"{USERS}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_text_that_no_name_can_hold_is_not_found_or_refused(api):
    for path in ("/v1/accounts/a%00/models", "/v1/accounts/hearth/models/a%00", f"{USERS}/%ED%A0%80"):
        assert (await api.get(path)).status_code == 404
    assert (await api.get("/v1/accounts/hearth/models?readMask=%00")).status_code == 400


async def test_a_mask_reads_and_writes_parts_of_fields(api):
    assert (await api.get(f"{USERS}/admin?readMask=status.code")).json() == {"status": {"code": "OK"}}
    deeper = await api.patch(f"{USERS}/admin?updateMask=displayName.first", json={"displayName": "A"})
    assert deeper.status_code == 400


async def test_times_are_texts_in_years_that_exist(api):
    keys = "/v1/accounts/hearth/apiKeys"
    for time in ("9999-12-31T23:59:59-12:00", 4102444800, True, "soon"):
        answer = await api.post(keys, json={"apiKey": {"expireTime": time}})
        assert answer.status_code == 400, time
    made = await api.post(keys, json={"apiKey": {"expireTime": "2100-01-01T00:00:00"}})
    assert made.json()["expireTime"] == "2100-01-01T00:00:00.000000Z"


async def test_of_two_last_admins_who_delete_each_other_one_stays(api):
    await api.post(f"{USERS}?userId=b", json={"email": "b@x.org", "role": "admin"})
    both = await asyncio.gather(api.delete(f"{USERS}/admin"), api.delete(f"{USERS}/b"))
    assert sorted(answer.status_code for answer in both) in ([200, 400], [200, 401])
