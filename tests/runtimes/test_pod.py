"""What an engine's pod does before and beside its engine, with a real object store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from workers.runtimes.base import ModelFile, ModelSource, ReplicaSpec
from workers.runtimes.engine import staged_path
from workers.runtimes.engine_failure import failure_reason
from workers.runtimes.kubernetes.pod import ADDON_PORT_OFFSET, SOURCE, WEIGHTS_LOST, addon_key
from workers.runtimes.node_settings import object_store_environment
from workers.runtimes.vllm import ENGINE_SPEC, EngineSpec

UID = "1a2b3c4d-0000-4000-8000-000000000000"
PREFIX = f"accounts/a/models/{UID}/"
HOST = "127.0.0.1"
Until = Callable[..., None]


def source(content: bytes = b"weights") -> ModelSource:
    file = ModelFile("adapter_model.safetensors", len(content), hashlib.sha256(content).hexdigest())
    return ModelSource(UID, PREFIX, (file,))


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    with socket.create_server((HOST, 0)) as free:
        port = int(free.getsockname()[1]) - ADDON_PORT_OFFSET
    return EngineSpec(ReplicaSpec("", "served", source(), "", port), tmp_path / "cache", 1)


def command(task: str, spec: EngineSpec, folder: Path) -> list[str]:
    (folder / "SPEC.json").write_text(json.dumps(ENGINE_SPEC.dump_python(spec, mode="json")))
    return [sys.executable, "-m", "workers.runtimes.kubernetes.pod", task, str(folder / "SPEC.json")]


def environment(settings: Settings) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    here = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "HEARTH_POD_IP": HOST}
    return here | object_store_environment(settings)


@pytest.fixture
def stager(
    spec: EngineSpec, settings: Settings, object_store: ObjectStore, tmp_path: Path, until: Until
) -> Iterator[httpx.Client]:
    """A running stager, and a client that has its key."""
    process = subprocess.Popen(command("addons", spec, tmp_path), env=environment(settings))
    key = addon_key(settings.s3_secret_key.get_secret_value())
    url = f"http://{HOST}:{spec.replica.port + ADDON_PORT_OFFSET}"
    try:
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        ) as client:
            until(lambda: answers(client))
            yield client
    finally:
        process.kill()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.TransportError:
        time.sleep(0.1)
        return False


def test_weights_are_brought_to_the_cache_before_the_engine_starts(
    spec: EngineSpec, settings: Settings, object_store: ObjectStore, tmp_path: Path
) -> None:
    draft = replace(source(b"guesses"), uid=UID[::-1], prefix="accounts/a/models/draft/")
    guessed = replace(spec, replica=replace(spec.replica, draft=draft))
    for model, content in ((source(), b"weights"), (draft, b"guesses")):
        object_store.put_bytes(f"{model.prefix}adapter_model.safetensors", content)
    subprocess.run(command("stage", guessed, tmp_path), env=environment(settings), check=True)
    for model, content in ((source(), b"weights"), (draft, b"guesses")):
        staged = staged_path(guessed, model)
        assert (staged / "adapter_model.safetensors").read_bytes() == content
    shutil.rmtree(staged)
    done = subprocess.run(
        command("serve", guessed, tmp_path), env=environment(settings), capture_output=True, text=True
    )
    assert failure_reason(done.stderr).reason == WEIGHTS_LOST, "as the draft model's are"


def test_an_engine_whose_weights_made_way_before_it_started_asks_for_another_pod(
    spec: EngineSpec, settings: Settings, tmp_path: Path
) -> None:
    done = subprocess.run(
        command("serve", spec, tmp_path), env=environment(settings), capture_output=True, text=True
    )
    failure = failure_reason(done.stderr)
    assert (done.returncode, failure.reason, failure.retryable) == (1, WEIGHTS_LOST, True)


def test_weights_that_are_missing_end_the_pod_with_their_name(
    spec: EngineSpec, settings: Settings, object_store: ObjectStore, tmp_path: Path
) -> None:
    done = subprocess.run(
        command("stage", spec, tmp_path), env=environment(settings), capture_output=True, text=True
    )
    failure = failure_reason(done.stderr)
    assert (done.returncode, failure.reason, failure.retryable) == (1, "FILE_MISSING", False)
    assert failure.message == "adapter_model.safetensors is missing from the object store"


def test_the_stager_brings_addons_and_refuses_all_else(
    stager: httpx.Client, object_store: ObjectStore, tmp_path: Path
) -> None:
    asked = SOURCE.dump_json(source())
    missing = stager.post("/stage", content=asked)
    assert (missing.status_code, missing.json()["reason"]) == (409, "FILE_MISSING")
    object_store.put_bytes(PREFIX + "adapter_model.safetensors", b"weights")
    brought = stager.post("/stage", content=asked)
    assert brought.status_code == 200
    assert (Path(brought.json()["path"]) / "adapter_model.safetensors").read_bytes() == b"weights"
    assert stager.post("/stage", content=b"{}").status_code == 400
    assert stager.post("/elsewhere", content=asked).status_code == 400
    assert stager.post("/stage", content=b"x" * (1 << 20) + b"x").status_code == 400
    stranger = stager.post("/stage", content=asked, headers={"Authorization": "Bearer guessed"})
    assert stranger.status_code == 401


def test_a_stager_that_is_told_to_go_goes_at_once_though_it_is_its_containers_first_process(
    spec: EngineSpec, settings: Settings, object_store: ObjectStore, tmp_path: Path, until: Until
) -> None:
    """Such a process is not ended by a signal that it has not asked for: it says itself how it ends."""
    process = subprocess.Popen(command("addons", spec, tmp_path), env=environment(settings))
    url = f"http://{HOST}:{spec.replica.port + ADDON_PORT_OFFSET}"
    try:
        with httpx.Client(base_url=url, trust_env=False) as client:
            until(lambda: answers(client))
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
