"""Uploading and downloading models."""

import json

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
    assert len(storage.sent("POST", f"{MODEL}:getUploadEndpoint")) == 2


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
    assert ran.code == 1
    assert "Error: no tokenizer" in ran.err
    assert len(storage.sent("DELETE", MODEL)) == 1


def test_what_cannot_be_taken_back_is_named_with_the_command(firectl, storage, base):
    storage.on("GET", f"{MODEL}:validateUpload", storage.refusal(400, 3, "broken"))
    storage.on("DELETE", MODEL, storage.refusal(500, 13, "storage is away"))
    ran = firectl("create", "model", "m", str(base))
    assert f"delete it with: firectl delete model {NAME}" in ran.err


def test_ctrl_c_during_the_upload_leaves_nothing_behind(firectl, storage, base, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.transfer.upload", interrupted)
    ran = firectl("create", "model", "m", str(base))
    assert ran.code == 130
    assert f"{NAME} was deleted" in ran.err


def test_a_model_that_is_still_being_checked_stays(firectl, storage, base):
    storage.on("GET", MODEL, CHECKING)
    ran = firectl("create", "model", "m", str(base), "--poll-duration", "20ms")
    assert ran.code == 1
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
    assert "it is still UPLOADING; if nothing uploads to it, firectl delete model m" in ran.err
    assert storage.sent("DELETE") == []


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


def test_a_link_within_the_folder_is_followed(firectl, storage, base):
    (base / "tokenizer.json").unlink()
    (base / "tokenizer.json").symlink_to(base / "config.json")
    assert firectl("create", "model", "m", str(base)).code == 0


@pytest.mark.parametrize(
    ("spoil", "argv", "said"),
    [
        (lambda f: (f / "vocab.txt").symlink_to("/etc/passwd"), [], "outside"),
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
