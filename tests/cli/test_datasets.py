"""Uploading datasets, and the report of bad rows."""

import pytest

HOME = "/v1/accounts/acme"
DATASET = f"{HOME}/datasets/d"
NAME = "accounts/acme/datasets/d"
READY = {"name": NAME, "state": "READY", "exampleCount": "2", "status": {"code": "OK"}}
REPORT = {
    "@type": "type.googleapis.com/hearth.DatasetReport",
    "badRowCount": "3",
    "badRows": [{"line": "2", "reason": "messages[0].role is missing"}, {"line": "9", "reason": "not JSON"}],
    "exampleCount": "10",
}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "My rows.v1.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n  \n')
    return path


@pytest.fixture
def server(api):
    """A server that takes a dataset and finds it good."""
    api.on("POST", f"{HOME}/datasets", {"name": NAME, "state": "UPLOADING"})
    api.on("POST", f"{DATASET}:upload", {"id": NAME})
    api.on("GET", DATASET, READY)
    api.on("DELETE", DATASET, {})
    return api


def test_a_dataset_is_created_with_its_example_count_and_uploaded(firectl, server, rows):
    ran = firectl("create", "dataset", "d", str(rows), "--display-name", "Rows")

    assert ran.code == 0
    assert "State: READY" in ran.out
    created = server.sent("POST", f"{HOME}/datasets")[0].body
    assert created == {
        "datasetId": "d",
        "dataset": {"displayName": "Rows", "exampleCount": "2", "userUploaded": {}},
    }
    upload = server.sent("POST", f"{DATASET}:upload")[0]
    assert upload.headers["content-type"].startswith("multipart/form-data")
    assert b'name="file"; filename="My-rows.v1.jsonl"' in upload.content
    assert rows.read_bytes() in upload.content


def test_without_an_id_the_file_gives_its_name(firectl, api, rows):
    api.on("POST", f"{HOME}/datasets", api.refusal(400, 3, "enough"))
    firectl("create", "dataset", str(rows))
    assert api.sent("POST")[0].body["datasetId"] == "my-rows"


def test_a_large_file_goes_through_a_signed_url(firectl, server, rows, monkeypatch):
    monkeypatch.setattr("cli.commands.datasets.DIRECT_UPLOAD_BYTES", 10)
    urls = {"filenameToSignedUrls": {"My-rows.v1.jsonl": f"{server.url}/storage/x"}}
    server.on("POST", f"{DATASET}:getUploadEndpoint", urls)
    server.on("PUT", "/storage/x", server.raw(200, b""))
    server.on("POST", f"{DATASET}:validateUpload", {})

    assert firectl("create", "dataset", "d", str(rows)).code == 0

    assert server.sent("PUT")[0].content == rows.read_bytes()
    assert server.sent("POST", f"{DATASET}:upload") == []
    assert len(server.sent("POST", f"{DATASET}:validateUpload")) == 1


def test_bad_rows_are_reported_line_by_line_and_nothing_is_left(firectl, server, rows):
    server.on(
        "POST", f"{DATASET}:upload", server.refusal(400, 3, "line 2: messages[0].role is missing", REPORT)
    )
    ran = firectl("create", "dataset", "d", str(rows))
    assert ran.code == 1
    assert ran.err.splitlines()[-6:] == [
        "Error: line 2: messages[0].role is missing",
        "  3 bad rows:",
        "    line 2: messages[0].role is missing",
        "    line 9: not JSON",
        "    and 1 more",
        f"  nothing was left behind: {NAME} was deleted",
    ]


def test_a_late_verdict_still_brings_its_rows(firectl, server, rows):
    checking = {"name": NAME, "state": "UPLOADING", "status": {"code": "OK", "message": "being checked"}}
    bad = {**checking, "status": {"code": "INVALID_ARGUMENT", "message": "3 rows are bad"}}
    server.on("GET", DATASET, checking, bad)
    server.on("POST", f"{DATASET}:validateUpload", server.refusal(400, 3, "3 rows are bad", REPORT))
    ran = firectl("create", "dataset", "d", str(rows))
    assert ran.code == 1
    assert "line 9: not JSON" in ran.err
    assert len(server.sent("DELETE")) == 1


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_creates_nothing(firectl, server, tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    ran = firectl("create", "dataset", "d", str(path))
    assert (ran.code, server.requests) == (1, [])
    assert "is empty" in ran.err


def test_a_file_that_is_not_there_is_told(firectl, server, tmp_path):
    ran = firectl("create", "dataset", "d", str(tmp_path / "none.jsonl"))
    assert (ran.code, server.requests) == (1, [])
    assert "does not exist" in ran.err
