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


def test_the_only_bad_row_is_told_once(firectl, server, rows):
    report = {**REPORT, "badRows": [{"line": "1", "reason": "not JSON"}], "badRowCount": "1"}
    server.on("POST", f"{DATASET}:upload", server.refusal(400, 3, "line 1: not JSON", report))
    assert firectl("upload", "dataset", "d", str(rows)).err.count("not JSON") == 1


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


def test_a_dataset_is_copied_from_another(firectl, server):
    server.on("GET", DATASET, {**READY, "state": "UPLOADING"}, READY)
    ran = firectl("create", "dataset", "d", "--source", "other", "--display-name", "Copy")
    assert ran.code == 0
    body = {"datasetId": "d", "dataset": {"displayName": "Copy"}, "sourceDatasetId": "other"}
    assert server.sent("POST", f"{HOME}/datasets")[0].body == body
    assert "State: READY" in ran.out


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        (["--source", "o", "--filter", "a > 1"], {"sourceDatasetId": "o", "filter": "a > 1", "dataset": {}}),
        (["--external-url", "gs://b/x.jsonl"], {"dataset": {"externalUrl": "gs://b/x.jsonl"}}),
    ],
)
def test_sources_that_the_server_refuses_are_told_in_its_words(firectl, api, flags, sent):
    api.on("POST", f"{HOME}/datasets", api.refusal(400, 3, "that is not supported: upload the file"))
    ran = firectl("dataset", "create", "d", *flags)
    assert ran.code == 1
    assert "that is not supported: upload the file" in ran.err
    assert api.sent("POST")[0].body == {"datasetId": "d", **sent}


def test_results_of_an_evaluation_are_said_to_be_such(firectl, server, rows):
    assert firectl("create", "dataset", "d", str(rows), "--eval-protocol-output").code == 0
    created = server.sent("POST", f"{HOME}/datasets")[0].body["dataset"]
    assert created == {"exampleCount": "2", "evalProtocol": {}}


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["d", "--start-time", "2030-01-01"], 1, "--start-time is not supported"),
        (["d", "--source", "o", "rows.jsonl"], 2, "one file too many"),
        (["d", "rows.jsonl", "--filter", "a"], 2, "add --source ID"),
        (["d", "s3://bucket/rows.jsonl"], 1, "aws s3 cp"),
    ],
)
def test_what_no_dataset_can_be_made_of_creates_nothing(firectl, server, argv, code, said):
    ran = firectl("create", "dataset", *argv)
    assert (ran.code, server.requests) == (code, [])
    assert said in ran.err


def test_a_dataset_that_waits_for_its_file_gets_it(firectl, server, rows):
    assert firectl("upload", "dataset", "d", str(rows)).code == 0
    assert server.sent("POST", f"{HOME}/datasets") == []
    assert len(server.sent("POST", f"{DATASET}:upload")) == 1


def test_a_dry_run_of_an_upload_sends_nothing(firectl, server, rows):
    ran = firectl("upload", "dataset", "d", str(rows), "--dry-run")
    assert (ran.code, ran.err, server.requests) == (0, "", [])
    assert ran.json["method"] == "POST"
    assert list(ran.json["upload"].values()) == [rows.stat().st_size]


def test_a_split_names_its_parts(firectl, api):
    parts = [f"{NAME}-chunk-{number}-of-2" for number in (1, 2)]
    api.on("POST", f"{DATASET}:splitDataset", {"chunkDatasetNames": parts, "totalExamples": 500})
    for part in parts:
        api.on("GET", f"/v1/{part}", {**READY, "name": part, "state": "UPLOADING"}, {**READY, "name": part})
    ran = firectl("split", "dataset", "d", "--chunk-size", "250", "--wait")
    assert (ran.code, ran.out.splitlines()) == (0, parts)
    assert api.sent("POST")[0].body == {"chunkSize": 250}
    assert "500 rows in 2 datasets" in ran.err


def test_a_lineage_is_downloaded_a_folder_a_dataset(firectl, api, tmp_path):
    def endpoint(request):
        urls = {"a.jsonl": f"{api.url}/storage/a", "b.jsonl": f"{api.url}/storage/b"}
        if request.query.get("downloadLineage"):
            return api.ok(
                {"filenameToSignedUrls": {"d/a.jsonl": urls["a.jsonl"], "source/b.jsonl": urls["b.jsonl"]}}
            )
        file = "b.jsonl" if "/source:" in request.path else "a.jsonl"
        return api.ok({"filenameToSignedUrls": {file: urls[file]}})

    for id in ("d", "source"):
        api.on("GET", f"{HOME}/datasets/{id}:getDownloadEndpoint", endpoint)
    api.on("GET", "/storage/a", api.raw(200, b"{}"))
    api.on("GET", "/storage/b", api.raw(200, b"[]"))

    assert firectl("dataset", "download", "d", str(tmp_path / "got"), "--download-lineage").code == 0

    assert (tmp_path / "got" / "d" / "a.jsonl").read_text() == "{}"
    assert (tmp_path / "got" / "source" / "b.jsonl").read_text() == "[]"
    again = firectl("dataset", "download", "d", str(tmp_path / "again"), "--download-lineage", "-o", "json")
    assert again.json == [str(tmp_path / "again" / file) for file in ("d/a.jsonl", "source/b.jsonl")]
