"""Uploading and downloading models."""

import hashlib
import json
import os

import pytest

HOME = "/v1/accounts/acme"
MODEL = f"{HOME}/models/m"
NAME = "accounts/acme/models/m"
READY = {"name": NAME, "state": "READY", "status": {"code": "OK"}}
CHECKING = {"name": NAME, "state": "UPLOADING", "status": {"code": "OK", "message": "being checked"}}


@pytest.fixture
def base(tmp_path):
    """A folder with a base model."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"w" * 3_000_000)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def adapter(tmp_path):
    """A folder with a LoRA adapter."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"r": 8, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "meta/llama"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"a" * 1000)
    return folder


@pytest.fixture
def storage(api):
    """A server that takes uploads of a model and finds them good."""

    def endpoint(request):
        names = request.body["filenameToSize"]
        return api.ok({"filenameToSignedUrls": {n: f"{api.url}/storage/{n}?signature=s" for n in names}})

    api.on("POST", f"{HOME}/models", {"name": NAME, "state": "UPLOADING"})
    api.on("POST", f"{MODEL}:getUploadEndpoint", endpoint)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        api.on("PUT", f"/storage/{name}", api.raw(200, b""))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        api.on("PUT", f"/storage/{name}", api.raw(200, b""))
    api.on("GET", f"{MODEL}:validateUpload", {"warnings": []})
    api.on("GET", MODEL, READY)
    api.on("DELETE", MODEL, {})
    return api


def test_a_base_model_is_created_uploaded_checked_and_shown(firectl, storage, base):
    storage.on("GET", MODEL, CHECKING, CHECKING, READY)

    ran = firectl("create", "model", "m", str(base), "--display-name", "Mine", "--public")

    assert ran.code == 0
    assert "State: READY" in ran.out
    created = storage.sent("POST", f"{HOME}/models")[0].body
    assert created == {
        "modelId": "m",
        "model": {"kind": "HF_BASE_MODEL", "displayName": "Mine", "public": True},
    }
    sizes = storage.sent("POST", f"{MODEL}:getUploadEndpoint")[0].body["filenameToSize"]
    assert sizes == {"config.json": "23", "model.safetensors": "3000000", "tokenizer.json": "2"}


def test_each_file_is_put_whole_with_its_size_and_without_the_key(firectl, storage, base):
    firectl("create", "model", "m", str(base))
    puts = {put.path: put for put in storage.sent("PUT")}
    weights = puts["/storage/model.safetensors"]
    assert weights.content == b"w" * 3_000_000
    assert weights.headers["content-type"] == "application/octet-stream"
    assert weights.headers["content-length"] == "3000000"
    assert weights.headers["x-goog-content-length-range"] == "3000000,3000000"
    assert all("authorization" not in put.headers for put in puts.values())


def test_an_adapter_says_what_it_adapts(firectl, storage, adapter):
    base_name = "accounts/fireworks/models/llama"
    assert firectl("create", "model", "m", str(adapter), "--base-model", base_name).code == 0
    created = storage.sent("POST", f"{HOME}/models")[0].body["model"]
    assert created["kind"] == "HF_PEFT_ADDON"
    assert created["peftDetails"] == {"baseModel": base_name, "r": 8, "targetModules": ["q_proj", "v_proj"]}


def test_a_lost_connection_and_a_busy_storage_are_tried_again(firectl, storage, base):
    storage.on(
        "PUT", "/storage/model.safetensors", storage.lost(), storage.raw(503, b"busy"), storage.raw(200, b"")
    )
    assert firectl("create", "model", "m", str(base)).code == 0
    assert len(storage.sent("PUT", "/storage/model.safetensors")) == 3


def test_an_expired_url_is_replaced(firectl, storage, base):
    expired = storage.raw(403, b"<Error><Message>Request has expired</Message></Error>")
    storage.on("PUT", "/storage/config.json", expired, storage.raw(200, b""))
    assert firectl("create", "model", "m", str(base)).code == 0
    asked = storage.sent("POST", f"{MODEL}:getUploadEndpoint")
    assert len([request for request in asked if "filenameToSha256" not in request.body]) == 2


def test_an_upload_that_fails_leaves_nothing_behind(firectl, storage, base):
    storage.on(
        "PUT", "/storage/config.json", storage.raw(400, b"<Error><Message>Too large</Message></Error>")
    )
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 1
    assert "config.json failed" in ran.err
    assert "Too large" in ran.err
    assert f"nothing was left behind: {NAME} was deleted" in ran.err
    assert len(storage.sent("DELETE", MODEL)) == 1


def test_a_model_that_is_refused_is_taken_back_with_the_servers_reasons(firectl, storage, base):
    problem = {"fieldViolations": [{"field": "model.safetensors", "description": "the header is broken"}]}
    storage.on("GET", f"{MODEL}:validateUpload", storage.refusal(400, 3, "1 file is not usable", problem))
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 1
    assert ran.err.splitlines()[-3:] == [
        "Error: 1 file is not usable",
        "  model.safetensors: the header is broken",
        f"  nothing was left behind: {NAME} was deleted",
    ]


def test_a_verdict_that_comes_late_counts_too(firectl, storage, base):
    bad = {**CHECKING, "status": {"code": "INVALID_ARGUMENT", "message": "no tokenizer"}}
    storage.on("GET", MODEL, CHECKING, bad)
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 3
    assert "Error: no tokenizer" in ran.err
    assert len(storage.sent("DELETE", MODEL)) == 1


def test_an_upload_that_is_not_whole_is_kept_to_go_on_with(firectl, storage, base):
    missing = "model.safetensors: 2 of its 6 parts did not arrive; upload on, and have it checked again"
    storage.on("GET", f"{MODEL}:validateUpload", storage.refusal(400, 9, missing))
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 1
    assert missing in ran.err
    assert storage.sent("DELETE", MODEL) == []


def test_an_upload_that_is_found_not_whole_later_is_kept_too(firectl, storage, base):
    missing = {**CHECKING, "status": {"code": "FAILED_PRECONDITION", "message": "2 parts did not arrive"}}
    storage.on("GET", MODEL, CHECKING, missing)
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 3
    assert "2 parts did not arrive" in ran.err
    assert storage.sent("DELETE", MODEL) == []


def test_what_cannot_be_taken_back_is_named_with_the_command(firectl, storage, base):
    storage.on("GET", f"{MODEL}:validateUpload", storage.refusal(400, 3, "broken"))
    storage.on("DELETE", MODEL, storage.refusal(500, 13, "storage is away"))
    ran = firectl("create", "model", "m", str(base))
    assert f"delete it with: firectl delete model {NAME}" in ran.err


def test_ctrl_c_during_the_upload_keeps_what_arrived_and_says_how_to_go_on(
    firectl, storage, base, monkeypatch
):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.transfer.upload", interrupted)
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 130
    assert f"{NAME} keeps what has arrived" in ran.err
    assert f"firectl upload model m {base}" in ran.err
    assert storage.sent("DELETE") == []


def test_a_model_that_is_still_being_checked_stays(firectl, storage, base):
    storage.on("GET", MODEL, CHECKING)
    ran = firectl("create", "model", "m", str(base), "--poll-duration", "20ms")
    assert ran.code == 4
    assert "being checked" in ran.err
    assert f"firectl get model {NAME}" in ran.err
    assert storage.sent("DELETE") == []


def test_warnings_of_the_check_are_shown(firectl, storage, base):
    storage.on("GET", f"{MODEL}:validateUpload", {"warnings": ["no chat template"]})
    ran = firectl("create", "model", "m", str(base))
    assert (ran.code, "Warning: no chat template" in ran.err) == (0, True)


def test_an_id_that_is_taken_is_never_touched(firectl, storage, base):
    storage.on("POST", f"{HOME}/models", storage.refusal(409, 6, f"{NAME} already exists"))
    storage.on("GET", MODEL, CHECKING)
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 1
    assert "it is still UPLOADING; to go on with that: firectl upload model m PATH" in ran.err
    assert "to begin anew: firectl delete model m" in ran.err
    assert storage.sent("DELETE") == []


def test_warnings_of_the_check_are_told_to_the_quiet_too(firectl, storage, base):
    storage.on("GET", f"{MODEL}:validateUpload", {"warnings": ["no chat template"]})
    assert "Warning: no chat template" in firectl("create", "model", "m", str(base), "--quiet").err


def test_a_wait_that_cannot_be_begun_creates_nothing(firectl, storage, base):
    ran = firectl("create", "model", "m", str(base), "--poll-duration", "long")
    assert (ran.code, storage.sent("POST")) == (2, [])
    assert 'invalid value for --poll-duration: "long" is not a duration' in ran.err


def test_a_dry_run_shows_the_request_and_the_files_and_sends_nothing(firectl, storage, base):
    shown = firectl("create", "model", "m", str(base), "--dry-run").json
    assert shown["method"] == "POST"
    assert shown["url"].endswith("/v1/accounts/acme/models")
    assert shown["body"]["modelId"] == "m"
    assert shown["upload"]["model.safetensors"] == 3_000_000
    assert storage.requests == []


def test_hidden_files_code_and_folders_are_left_out_aloud(firectl, storage, base):
    (base / ".gitattributes").write_text("x")
    (base / "modeling_own.py").write_text("import os")
    (base / "original").mkdir()
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 0
    assert "modeling_own.py: code" in ran.err
    assert "original: a folder" in ran.err
    assert set(storage.sent("POST", f"{MODEL}:getUploadEndpoint")[0].body["filenameToSize"]) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_forty_files_of_other_programs_are_told_in_one_line(firectl, storage, base):
    for number in range(37):
        (base / f".hidden-{number:02}").write_text("x")
    for name in ("Thumbs.db", "model.safetensors.lock", "config.json~", "old.PYC"):
        (base / name).write_text("x")
    (base / "__pycache__").mkdir()
    (base / ".DS_Store").symlink_to("nowhere")
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 0
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Left out")]
    assert line.endswith("and 38 more: hidden, or left by other programs")
    assert len(storage.sent("PUT")) == 3


def test_a_snapshot_of_links_to_blobs_elsewhere_is_uploaded(firectl, storage, base, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in base.iterdir():
        blob = blobs / hashlib.sha256(file.name.encode()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    assert firectl("create", "model", "m", str(snapshot)).code == 0
    puts = {put.path: put.content for put in storage.sent("PUT")}
    assert puts["/storage/model.safetensors"] == b"w" * 3_000_000
    assert set(puts) == {"/storage/config.json", "/storage/model.safetensors", "/storage/tokenizer.json"}


@pytest.mark.parametrize(
    ("spoil", "argv", "said"),
    [
        (lambda f: (f / "vocab.txt").symlink_to(f / "gone"), [], "vocab.txt is a link to"),
        (
            lambda f: (f / "vocab.txt").symlink_to(f / "vocab.txt"),
            [],
            "vocab.txt is a link that leads in a circle",
        ),
        (
            lambda f: (f / "vocab.txt").symlink_to("/dev/null"),
            [],
            "vocab.txt is neither a file nor a folder, but a device",
        ),
        (lambda f: os.mkfifo(f / "vocab.txt"), [], "but a pipe"),
        (lambda f: (f / "config.json").unlink(), [], "config.json"),
        (lambda f: (f / "model.safetensors").unlink(), [], "no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), [], "is empty"),
        (lambda f: None, ["--base-model", "b"], "adapter_config.json"),
        (lambda f: (f / "adapter_config.json").write_text('{"r": 8}'), [], "--base-model"),
        (lambda f: (f / "adapter_config.json").write_text("{"), [], "not JSON"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), ["--base-model", "b"], "target_modules"),
    ],
)
def test_a_folder_that_cannot_be_a_model_creates_nothing(firectl, storage, base, spoil, argv, said):
    spoil(base)
    ran = firectl("create", "model", "m", str(base), *argv)
    assert ran.code == 1
    assert said in ran.err
    assert storage.requests == []


def test_a_folder_that_is_not_there_is_told(firectl, storage, tmp_path):
    assert "does not exist" in firectl("create", "model", "m", str(tmp_path / "none")).err
    assert storage.requests == []


def test_files_can_be_uploaded_to_a_model_that_waits_for_them(firectl, storage, base):
    assert firectl("model", "upload", "m", str(base)).code == 0
    assert storage.sent("POST", f"{HOME}/models") == []
    assert len(storage.sent("PUT")) == 3


def test_a_download_writes_every_file_whole(firectl, api, tmp_path):
    urls = {"config.json": f"{api.url}/storage/c", "model.safetensors": f"{api.url}/storage/w"}
    api.on("GET", f"{MODEL}:getDownloadEndpoint", {"filenameToSignedUrls": urls})
    api.on("GET", "/storage/c", api.raw(200, b"{}"))
    api.on("GET", "/storage/w", api.raw(500, b"oops"), api.raw(200, b"w" * 100_000))
    target = tmp_path / "got"

    assert firectl("download", "model", "m", str(target)).code == 0

    assert {p.name: p.stat().st_size for p in target.iterdir()} == {
        "config.json": 2,
        "model.safetensors": 100_000,
    }
    assert all("authorization" not in r.headers for r in api.sent("GET", "/storage/w"))


@pytest.mark.parametrize("name", ["../evil", "/etc/cron.d/evil", ".bashrc", "a\\b"])
def test_a_download_writes_nowhere_but_into_its_folder(firectl, api, tmp_path, name):
    urls = {name: f"{api.url}/storage/x"}
    api.on("GET", f"{MODEL}:getDownloadEndpoint", {"filenameToSignedUrls": urls})
    api.on("GET", "/storage/x", api.raw(200, b"evil"))
    ran = firectl("download", "model", "m", str(tmp_path / "got"))
    assert ran.code == 1
    assert not list(tmp_path.rglob("*evil*"))
    assert api.sent("GET", "/storage/x") == []


@pytest.mark.parametrize("file", ["fireworks.json", "adapter_config.json"])
def test_an_adapter_whose_files_name_its_base_needs_no_flag(firectl, storage, adapter, file):
    named = "accounts/fireworks/models/llama"
    key = "base_model" if file == "fireworks.json" else "base_model_name_or_path"
    content = json.loads((adapter / "adapter_config.json").read_text()) if file != "fireworks.json" else {}
    (adapter / file).write_text(json.dumps({**content, key: named}))
    storage.on("PUT", "/storage/fireworks.json", storage.raw(200, b""))

    ran = firectl("create", "model", "m", str(adapter))

    assert ran.code == 0
    assert f"Its base model is {named}, says {file}" in ran.err
    assert storage.sent("POST", f"{HOME}/models")[0].body["model"]["peftDetails"]["baseModel"] == named


def test_the_flag_wins_over_what_the_files_say(firectl, storage, adapter):
    (adapter / "fireworks.json").write_text('{"base_model": "accounts/a/models/wrong"}')
    storage.on("PUT", "/storage/fireworks.json", storage.raw(200, b""))
    assert firectl("create", "model", "m", str(adapter), "--base-model", "right").code == 0
    assert storage.sent("POST", f"{HOME}/models")[0].body["model"]["peftDetails"]["baseModel"] == "right"


@pytest.mark.parametrize(
    ("source", "tool"),
    [("s3://bucket/model", "aws s3 cp"), ("https://x.blob.core.windows.net/c/m", "azcopy copy")],
)
def test_a_model_in_a_bucket_is_to_be_downloaded_first(firectl, storage, source, tool):
    ran = firectl("model", "create", "m", source)
    assert (ran.code, storage.requests) == (1, [])
    assert f"{tool}" in ran.err
    assert "firectl create model m FOLDER" in ran.err


def test_credentials_for_a_bucket_are_refused_by_name(firectl, storage, base):
    ran = firectl("create", "model", "m", str(base), "--aws-access-key-id", "AKIA")
    assert (ran.code, storage.requests) == (1, [])
    assert "--aws-access-key-id is not supported: models are uploaded from a folder" in ran.err


@pytest.mark.parametrize("words", [("prepare-model",), ("model", "prepare"), ("prepare", "model")])
def test_a_model_is_prepared_in_a_precision(firectl, api, words):
    api.on("POST", f"{MODEL}:prepare", {})
    api.on("GET", MODEL, CHECKING, READY)
    ran = firectl(*words, "m", "--precision", "fp16", "--wait")
    assert ran.code == 0
    assert api.sent("POST")[0].body == {"precision": "FP16"}
    assert "State: READY" in ran.out
    assert "firectl create deployment m --precision FP16" in ran.err


def test_a_precision_that_there_is_not_is_told_in_the_servers_words(firectl, api):
    refusal = api.refusal(400, 12, "models are not prepared in other precisions: m has FP16")
    api.on("POST", f"{MODEL}:prepare", refusal)
    ran = firectl("prepare-model", "m", "--precision", "FP8")
    assert (ran.code, ran.out) == (1, "")
    assert "m has FP16" in ran.err


def test_an_import_that_is_refused_names_the_other_ways(firectl, api):
    api.on(
        "POST", f"{HOME}/models/mine:import", api.refusal(400, 12, "models are not fetched from other stores")
    )
    ran = firectl("import", "model", "accounts/fireworks/models/llama", "--model-id", "mine")
    assert ran.code == 1
    assert "models are not fetched from other stores" in ran.err
    assert "firectl create model mine FOLDER" in ran.err


def test_a_model_that_is_not_whole_yet_has_no_precision(firectl, api):
    api.on("GET", MODEL, CHECKING)
    ran = firectl("prepare-model", "m")
    assert (ran.code, api.sent("POST")) == (1, [])
    assert f"{NAME} has no precision yet: it is UPLOADING" in ran.err
