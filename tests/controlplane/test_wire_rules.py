"""The rules that every endpoint shares: spelling, masks, pages, limits and the shape of errors."""

import asyncio
import json
import re

import pytest
from fastapi import HTTPException

from controlplane.rest.body_limit import BodyLimit

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


async def test_a_body_that_does_not_end_is_cut_off():
    """The middleware alone, around an app that reads its body as FastAPI does."""

    async def app(scope, receive, send):
        await receive()

    async def never():
        await asyncio.Event().wait()

    scope = {"type": "http", "path": "/v1/accounts", "headers": []}
    with pytest.raises(HTTPException) as refused:
        await BodyLimit(app, limit=1024, seconds=0.01)(scope, never, None)
    assert (refused.value.status_code, refused.value.headers) == (408, {"Connection": "close"})


async def test_once_a_body_is_there_its_answer_may_take_its_time():
    messages = iter([{"type": "http.request", "body": b"{}", "more_body": False}])
    gone = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await asyncio.sleep(0.02)
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async def receive():
        return next(messages, {"type": "http.disconnect"})

    scope = {"type": "http", "path": "/v1/accounts", "headers": []}
    await BodyLimit(app, limit=1024, seconds=0.01)(scope, receive, None)
    assert gone.is_set()


async def test_wrong_paths_and_methods_have_the_same_shape(api):
    missing = await api.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, 5)
    wrong = await api.put(f"{USERS}/admin", json={})
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "DELETE, GET, PATCH"


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
        ('{"email":' + "9" * 5000 + "}", "thousands of digits"),
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


async def test_what_is_more_than_64_bits_is_refused_by_its_field(api):
    details = {"kind": "HF_BASE_MODEL", "baseModelDetails": {"parameterCount": str(2**63)}}
    for path, body, field in (
        ("models", {"modelId": "m", "model": details}, "model.baseModelDetails.parameterCount"),
        ("datasets", {"datasetId": "d", "dataset": {"exampleCount": 2**63}}, "dataset.exampleCount"),
    ):
        answer = await api.post(f"/v1/accounts/hearth/{path}", json=body)
        assert (answer.status_code, field in answer.json()["message"]) == (400, True), answer.text
    found = await api.get("/v1/accounts/hearth/models?filter=base_model_details.parameter_count > 5")
    assert found.status_code == 200, found.text


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


async def test_a_blank_mask_is_none(api):
    for number, mask in enumerate(("", "%20", ",", "*", "%20*%20")):
        changed = await api.patch(f"{USERS}/admin?updateMask={mask}", json={"displayName": f"A{number}"})
        assert changed.json()["displayName"] == f"A{number}", mask
        assert (await api.get(f"{USERS}/admin?readMask={mask}")).json() == changed.json(), mask


async def test_masks_name_parts_whether_they_are_set_or_not(api):
    await api.post("/v1/accounts/hearth/models", json={"modelId": "m", "model": {"kind": "HF_BASE_MODEL"}})
    path = "/v1/accounts/hearth/models/m"
    unset = await api.patch(f"{path}?updateMask=peft_details.r,deprecationDate.year", json={})
    assert unset.status_code == 200, unset.text
    for mask in ("peftDetails.colour", "status.colour", "displayName.first", "status.code.first"):
        for answer in (
            await api.patch(f"{path}?updateMask={mask}", json={}),
            await api.get(f"{path}?readMask={mask}"),
            await api.get(f"/v1/accounts/hearth/models?pageSize=1&readMask={mask}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (400, 3), (answer.request.url, answer.text)
    assert (await api.get("/v1/accounts/hearth/deployments?readMask=colour")).status_code == 400


async def test_times_are_texts_in_years_that_exist(api):
    keys = "/v1/accounts/hearth/apiKeys"
    for time in ("9999-12-31T23:59:59-12:00", 4102444800, "4102444800", True, "soon"):
        answer = await api.post(keys, json={"apiKey": {"expireTime": time}})
        assert answer.status_code == 400, time
    made = await api.post(keys, json={"apiKey": {"expireTime": "2100-01-01T00:00:00"}})
    assert made.json()["expireTime"] == "2100-01-01T00:00:00.000000Z"


async def test_of_two_last_admins_who_delete_each_other_one_stays(api):
    await api.post(f"{USERS}?userId=b", json={"email": "b@x.org", "role": "admin"})
    both = await asyncio.gather(api.delete(f"{USERS}/admin"), api.delete(f"{USERS}/b"))
    assert sorted(answer.status_code for answer in both) in ([200, 400], [200, 401])


async def test_queries_come_in_both_spellings_and_once(api):
    for query in ("pageSize=1", "page_size=1"):
        await api.post(f"{USERS}?userId=a", json={"email": "a@x.org"})
        assert len((await api.get(f"{USERS}?{query}")).json()["users"]) == 1
    twice = await api.get(f"{USERS}?pageSize=1&page_size=2")
    assert (twice.status_code, twice.json()["message"]) == (400, "pageSize is there twice")


async def test_an_update_of_what_somebody_else_changed_meanwhile_is_refused(api):
    await api.post(f"{USERS}?userId=a", json={"email": "a@x.org"})
    read = await api.get(f"{USERS}/a")
    theirs = await api.patch(f"{USERS}/a", json={"displayName": "theirs"})
    assert theirs.headers["etag"] != read.headers["etag"]
    lost = {"If-Match": read.headers["etag"]}
    refused = await api.patch(f"{USERS}/a", json={"displayName": "mine"}, headers=lost)
    assert (refused.status_code, refused.json()["code"]) == (412, 10)
    assert (await api.get(f"{USERS}/a")).json()["displayName"] == "theirs"
    for tag in (theirs.headers["etag"], f"W/{theirs.headers['etag']}", f'"x", {theirs.headers["etag"]}', "*"):
        renamed = await api.patch(f"{USERS}/a", json={"displayName": "theirs"}, headers={"If-Match": tag})
        assert renamed.status_code == 200, renamed.text


async def test_the_docs_page_needs_nothing_from_elsewhere(http):
    page = await http.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert not link.startswith(("http:", "https:", "//"))
        assert (await http.get(f"/{link}")).status_code == 200
    assert (await http.get("/docs/secrets.txt")).status_code == 404


@pytest.mark.parametrize("header", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
async def test_a_body_is_json_whatever_its_header_says(api, header):
    made = await api.post(f"{USERS}?userId=a", content=b'{"email": "a@x.org"}', headers=header)
    assert made.status_code == 200, made.text
    odd = await api.post(f"{USERS}?userId=b", content=b"email=b@x.org", headers=header)
    assert (odd.status_code, odd.json()["code"]) == (400, 3)
    assert "not valid JSON" in odd.json()["message"]
