"""What a trainer's pod does before it trains, with the real object store: of one attempt one pod trains."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from workers.runtimes.node_settings import object_store_environment
from workers.runtimes.trainer_pod import ATTEMPT_VARIABLE, POD_VARIABLE, claim
from workers.training.errors import EXIT_INTERRUPTED, EXIT_OUTAGE

PREFIX = "accounts/acme/fine-tuning-jobs/77/"
REFUSED = 1


class Pod:
    """Runs as a container does, in a folder of its own. Its specification says only where results go."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.environment = object_store_environment(settings)
        self.folder = folder
        (folder / "given").mkdir()
        (folder / "given" / "SPEC.json").write_text(json.dumps({"output_prefix": PREFIX}))

    def run(self, uid: str, attempt: int = 1) -> subprocess.CompletedProcess[str]:
        here = self.folder / uid
        here.mkdir(exist_ok=True)
        root = str(Path(__file__).resolve().parents[2])
        env = {**self.environment, POD_VARIABLE: uid, ATTEMPT_VARIABLE: str(attempt), "PYTHONPATH": root}
        command = [sys.executable, "-m", "workers.runtimes.trainer_pod", str(self.folder / "given/SPEC.json")]
        return subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def pod(settings: Settings, object_store: ObjectStore, tmp_path: Path) -> Pod:
    return Pod(settings, tmp_path)


def test_the_first_pod_of_an_attempt_trains_and_another_one_ends_without_a_word(
    pod: Pod, object_store: ObjectStore
) -> None:
    assert pod.run("one").returncode == REFUSED  # the trainer looked, and said so
    assert json.loads(object_store.get_bytes(PREFIX + "result.json"))["outcome"] == "failed"
    object_store.delete(PREFIX + "result.json")
    done = pod.run("other")
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_INTERRUPTED, "", "")
    assert object_store.head(PREFIX + "result.json") is None
    assert pod.run("other", attempt=2).returncode == REFUSED


def test_of_pods_that_come_at_the_same_moment_one_has_the_attempt_and_the_others_know_it(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ATTEMPT_VARIABLE, "1")
    pods, start = [f"pod-{number}" for number in range(8)], threading.Barrier(8)

    def come(pod: str) -> str:
        start.wait()
        return claim(object_store, PREFIX, pod)

    with ThreadPoolExecutor(len(pods)) as together:
        said = set(together.map(come, pods))
    assert len(said) == 1
    assert claim(object_store, PREFIX, "late") in said <= set(pods)


def test_without_the_object_store_it_is_to_be_tried_again(pod: Pod) -> None:
    pod.environment["HEARTH_S3_ENDPOINT"] = "http://127.0.0.1:9"
    done = pod.run("one")
    assert done.returncode == EXIT_OUTAGE
    assert "the object store cannot be reached" in done.stderr
