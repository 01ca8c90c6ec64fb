"""Uploads over a network that breaks, by a program that is killed, to a server that restarts."""

from __future__ import annotations

import json
import os
import random
import signal

import httpx
import pytest

from controlplane.resources import resumable, uploads
from tests.transfer.conftest import MIB, PART, make_model, sha256_of, until

WEIGHTS = "model.safetensors"
pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.fixture
def stored(server, admin_key):
    """The checksums of a model's files, as the server read them."""

    def ask(model_id="m"):
        url = f"{server.url}/v1/accounts/hearth/models/{model_id}:getDownloadEndpoint"
        answer = httpx.get(url, headers={"Authorization": f"Bearer {admin_key}"})
        assert answer.status_code == 200, answer.text
        return answer.json()["filenameToSha256"]

    return ask


def checksums(folder):
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def size_of(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_connection_that_is_cut_costs_only_what_was_under_way(firectl, network, stored, large):
    cuts = sorted(random.Random(3).sample(range(5 * MIB, 38 * MIB), 3))
    network.cut_at(up=cuts)
    ran = firectl("create", "model", "m", str(large))
    assert (ran.code, "State: READY" in ran.out) == (0, True), ran.err
    assert network.cuts == 3
    assert stored() == checksums(large)
    assert network.up <= size_of(large) + 3 * 4 * PART + MIB


def test_a_killed_firectl_that_is_typed_again_goes_on(firectl, start, network, stored, large):
    network.hold_at(25 * MIB)
    killed = start("create", "model", "m", str(large))
    until(lambda: network.is_holding)
    killed.kill()
    network.flow()
    taken = firectl("create", "model", "m", str(large))
    assert taken.code == 1
    assert "firectl upload model m" in taken.err
    ran = firectl("upload", "model", "m", str(large))
    assert (ran.code, "State: READY" in ran.out) == (0, True), ran.err
    assert "had arrived before" in ran.err
    assert stored() == checksums(large)
    assert network.up <= size_of(large) + 4 * PART + MIB


def test_ctrl_c_keeps_the_model_and_names_the_command_that_goes_on(firectl, start, network, stored, model):
    network.hold_at(16 * MIB)
    running = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    running.process.send_signal(signal.SIGINT)
    ran = running.finish()
    network.flow()
    assert ran.code == 130
    assert f"firectl upload model m {model}" in ran.err
    assert "Traceback" not in ran.err
    assert firectl("upload", "model", "m", str(model)).code == 0
    assert stored() == checksums(model)


def test_a_server_that_restarts_meanwhile_is_waited_for(start, network, server, stored, model, monkeypatch):
    monkeypatch.setattr(resumable, "URLS_AN_ANSWER", 3)
    network.hold_at(8 * MIB)
    running = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    server.stop()
    network.flow()
    until(lambda: network.up > 10 * MIB or running.process.poll() is not None)
    server.start()
    ran = running.finish()
    assert ran.code == 0, ran.err
    assert stored() == checksums(model)


def test_addresses_that_are_too_old_are_renewed(start, network, object_store, stored, model, monkeypatch):
    for module in (resumable, uploads):
        monkeypatch.setattr(module, "URL_LIFETIME_SECONDS", 2)
    network.hold_at(8 * MIB)
    running = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    object_store.put_bytes("accounts/hearth/probe", b"x")
    probe = object_store.signed_get_url("accounts/hearth/probe", expires=2).replace(
        network.url, object_store._endpoint
    )
    monkeypatch.undo()
    monkeypatch.setattr(resumable, "USUAL_PART_BYTES", PART)
    with httpx.Client(headers={"Host": network.url.removeprefix("http://")}) as plain:
        until(lambda: plain.get(probe).status_code == 403)
    network.flow()
    ran = running.finish()
    assert ran.code == 0, ran.err
    assert stored() == checksums(model)


def test_a_file_that_changes_during_the_upload_is_found_and_sent_right_the_next_time(
    firectl, start, network, stored, model
):
    network.hold_at(16 * MIB)
    running = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    with (model / WEIGHTS).open("r+b") as stream:
        stream.seek(3 * PART)
        stream.write(b"changed!")
    network.flow()
    ran = running.finish()
    assert ran.code == 1
    assert f"{model / WEIGHTS} changed while it was uploaded" in ran.err
    again = firectl("upload", "model", "m", str(model))
    assert again.code == 0, again.err
    assert stored() == checksums(model)


def test_a_file_that_changed_between_two_commands_is_sent_where_it_changed(
    firectl, start, network, stored, large
):
    network.hold_at(30 * MIB)
    killed = start("create", "model", "m", str(large))
    until(lambda: network.is_holding)
    killed.kill()
    network.flow()
    before = (large / WEIGHTS).stat()
    with (large / WEIGHTS).open("r+b") as stream:
        stream.seek(PART + 100)
        stream.write(b"changed!")
    os.utime(large / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns))
    ran = firectl("upload", "model", "m", str(large))
    assert ran.code == 0, ran.err
    assert stored() == checksums(large)


def test_two_that_upload_the_same_model_end_with_one_that_is_whole(firectl, start, network, stored, model):
    network.hold_at(MIB)
    first = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    second = start("upload", "model", "m", str(model))
    network.flow()
    ended = [first.finish(), second.finish()]
    assert 0 in [ran.code for ran in ended], [ran.err for ran in ended]
    for ran in ended:
        assert ran.code == 0 or "READY and cannot be uploaded to" in ran.err or "being checked" in ran.err
        assert "deleted" not in ran.err
    assert stored() == checksums(model)


def upload_at_last(firectl, folder):
    """Twice, if what a former upload had under way arrived after this one's: a small file is one PUT."""
    ran = firectl("upload", "model", "m", str(folder))
    if ran.code:
        assert "upload it again" in ran.err
        ran = firectl("upload", "model", "m", str(folder))
    assert ran.code == 0, ran.err


def test_two_that_upload_different_files_do_not_mix_them(firectl, start, network, stored, model, tmp_path):
    other = make_model(tmp_path / "other", 27 * MIB, seed=8)
    network.hold_at(8 * MIB)
    first = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    second = start("upload", "model", "m", str(other))
    network.flow()
    ended = [(first.finish(), model), (second.finish(), other)]
    won = [folder for ran, folder in ended if ran.code == 0]
    if won:
        assert stored() == checksums(won[-1])
    refusals = ("somebody else", "check", "other files were registered", "READY and cannot be uploaded to")
    for ran, _ in ended:
        assert ran.code == 0 or any(words in ran.err for words in refusals), ran.err
    if not won:
        upload_at_last(firectl, other)
        assert stored() == checksums(other)


def test_what_somebody_else_uploads_to_by_now_is_not_deleted(
    firectl, start, network, model, server, admin_key, tmp_path
):
    other = make_model(tmp_path / "other", 27 * MIB, seed=8)
    network.hold_at(8 * MIB)
    first = start("create", "model", "m", str(model))
    until(lambda: network.is_holding)
    sizes = {file.name: str(file.stat().st_size) for file in other.iterdir()}
    url = f"{server.url}/v1/accounts/hearth/models/m:getUploadEndpoint"
    body = {"filenameToSize": sizes, "enableResumableUpload": True}
    httpx.post(url, json=body, headers={"Authorization": f"Bearer {admin_key}"}).raise_for_status()
    network.flow()
    ran = first.finish()
    assert ran.code == 1
    assert "deleted" not in ran.err
    upload_at_last(firectl, other)


def test_a_large_dataset_goes_in_parts_too(firectl, network, tmp_path, server, admin_key):
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as stream:
        for number in range(4000):
            said = {"role": "user", "content": str(number) * 1200}
            answer = {"role": "assistant", "content": "Hello"}
            stream.write(json.dumps({"messages": [said, answer]}) + "\n")
    assert rows.stat().st_size > 8 * MIB
    network.cut_at(up=[12 * MIB])
    ran = firectl("create", "dataset", "d", str(rows))
    assert ran.code == 0, ran.err
    assert network.cuts == 1
    url = f"{server.url}/v1/accounts/hearth/datasets/d:getDownloadEndpoint"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {admin_key}"}).json()
    assert answer["filenameToSha256"] == {"rows.jsonl": sha256_of(rows)}


def test_bytes_of_a_killed_firectl_that_arrive_late_do_not_count(
    firectl, start, network, object_store, stored, large, admin_key, server
):
    network.hold_at(25 * MIB)
    killed = start("create", "model", "m", str(large))
    until(lambda: network.is_holding)
    killed.kill()
    network.flow()
    sizes = {path.name: path.stat().st_size for path in large.iterdir()}
    body = {"filenameToSize": sizes, "enableResumableUpload": True, "filenameToFirstPart": {WEIGHTS: 2}}
    url = f"{server.url}/v1/accounts/hearth/models/m:getUploadEndpoint"
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {admin_key}"}).json()
    late = answer["filenameToParts"][WEIGHTS]["partNumberToSignedUrl"]["2"]
    network.hold_at(network.up + network.down + MIB)
    running = start("upload", "model", "m", str(large))
    until(lambda: network.is_holding)
    direct = late.replace(network.url, object_store._endpoint)
    host = {"Host": network.url.removeprefix("http://")}
    assert httpx.put(direct, content=bytes(PART), headers=host, timeout=60).status_code == 200
    network.flow()
    ran = running.finish()
    assert ran.code == 0, ran.err
    assert stored() == checksums(large)
