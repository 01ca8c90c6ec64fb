"""Fine-tuning on a bad night: whichever process is killed, whenever, the job ends as if nothing had been.

There are two workers. One of them is killed, and its jobs move to the other; that one is left alone.
The seed of the moments is printed; HEARTH_FAULT_SEED repeats a night, HEARTH_FAULT_MOMENTS makes it longer.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, select

from controlplane.resources.tables import LedgerRow
from tests.e2e.chaos import (
    PHASES,
    VICTIMS,
    Moment,
    Trainers,
    await_phase,
    choose_moments,
    kill,
    part_pid,
)
from tests.e2e.conftest import BIN, QUICKSTART, STOP_SECONDS, Platform, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.training, pytest.mark.timeout(1200)]

SEED = int(os.environ.get("HEARTH_FAULT_SEED") or SystemRandom().randrange(10_000))
MOMENTS = int(os.environ.get("HEARTH_FAULT_MOMENTS") or 20)
OF_ONE = ("HEARTH_METRICS_HOST", "HEARTH_METRICS_PORT")
"""Settings that each part has for itself."""
BROUGHT_ON = b"Task hearth.reconcile_fine_tuning_job["
ENDED = ("COMPLETED", "FAILED")
SETTINGS = {
    "conversation": {},
    "epochs": 8,
    "batchSize": 4,
    "learningRate": 0.005,
    "loraRank": 8,
    "evaluation": True,
}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own, with checkpoints every few seconds, a model and rows."""
    platform = Platform(tmp_path_factory.mktemp("night") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEARTH_CHECKPOINT_SECONDS", "1")
        platform.start()
    rows = platform.data_dir.parent / "rows.jsonl"
    rows.write_text("".join((QUICKSTART / "data" / "train.jsonl").open().readlines()[:96]))
    platform.firectl("create", "model", "ember", str(QUICKSTART / "model"))
    platform.firectl("create", "dataset", "rows", str(rows))
    yield platform
    assert platform.stop() == 0


@pytest.fixture(scope="module")
def other_worker(night: Platform) -> Iterator[Path]:
    """Another worker of the same node, which nobody kills; its log."""
    log = night.data_dir / "logs" / "other-worker.log"
    settings = settings_of(night)
    with log.open("wb") as output:
        command = [str(BIN / "hearth"), "worker"]
        worker = subprocess.Popen(command, cwd=night.data_dir, env=settings, stdout=output, stderr=output)
    wait_until(lambda: b" ready." in log.read_bytes())
    yield log
    worker.terminate()
    assert worker.wait(STOP_SECONDS) == 0


def settings_of(platform: Platform) -> dict[str, str]:
    """What the platform's parts run with, as its api shows it; a worker's title is written over its own."""
    pid = wait_until(lambda: part_pid(platform.data_dir, "api"))
    pairs = Path(f"/proc/{pid}/environ").read_text().strip("\0").split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name not in OF_ONE}


def start(platform: Platform, job_id: str) -> None:
    body = {**SETTINGS, "baseModel": "ember", "dataset": "rows", "modelId": f"{job_id}-model"}
    path = f"/v1/accounts/{platform.account}/fineTuningJobs?fineTuningJobId={job_id}"
    made = wait_until(lambda: tried(lambda: platform.request("POST", path, json=body)))
    assert made.status_code in (200, 409), made.text  # 409: the answer to the first request was lost


def tried(ask: Any) -> httpx.Response | None:
    """The answer; None while a part that was killed is away."""
    try:
        answer: httpx.Response = ask()
    except httpx.HTTPError:
        return None
    return None if answer.status_code >= 500 else answer


def look_at(platform: Platform, job_id: str) -> dict[str, Any]:
    path = f"/v1/accounts/{platform.account}/fineTuningJobs/{job_id}"
    answer = tried(lambda: platform.request("GET", path))
    found: dict[str, Any] = answer.json() if answer is not None and answer.status_code == 200 else {}
    return found


def finish(platform: Platform, job_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        job = look_at(platform, job_id)
        return job if job.get("state") in ENDED else None

    found: dict[str, Any] = wait_until(ended, 300)
    return found


def adapter_hash(platform: Platform, job_id: str, folder: Path) -> str:
    platform.firectl("download", "model", f"{job_id}-model", str(folder / job_id))
    (weights,) = (folder / job_id).rglob("adapter_model.safetensors")
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def steps_of(platform: Platform, job_id: str) -> list[int]:
    metrics = read(platform, f"fineTuningJobs/{job_id}:metrics")["metrics"]
    return [line["step"] for line in metrics if "loss" in line]


def ledger(platform: Platform) -> list[tuple[str, int | None]]:
    """The jobs that were metered, and their tokens: a line for each entry."""
    engine = create_engine(settings_of(platform)["HEARTH_DATABASE_URL"])
    with engine.connect() as connection:
        found = connection.execute(select(LedgerRow.job, LedgerRow.trained_tokens)).tuples().all()
    engine.dispose()
    return sorted(found)


def read(platform: Platform, path: str) -> dict[str, Any]:
    path = f"/v1/accounts/{platform.account}/{path}"
    answer = wait_until(lambda: tried(lambda: platform.request("GET", path)))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Night(threading.Thread):
    """Kills what it is told to while jobs run one after the other."""

    def __init__(self, platform: Platform, moments: list[Moment]) -> None:
        super().__init__(daemon=True)
        self.platform, self.left = platform, list(moments)
        self.over = threading.Event()
        self.killed: list[Moment] = []

    def run(self) -> None:
        trainers = Trainers(self.platform.data_dir)
        while self.left and not self.over.is_set():
            moment = self.left[0]
            if not await_phase(trainers, moment.phase, self.over):
                return
            self.over.wait(moment.delay)
            if self.kill(moment.victim):
                self.killed.append(self.left.pop(0))
                print(f"{time.strftime('%X')} killed: {moment}", flush=True)

    def kill(self, victim: str) -> bool:
        """Whether it could be killed before the job was over: it may have to come up again first."""
        return bool(wait_until(lambda: self.over.is_set() or kill(self.platform.data_dir, victim), 120)) and (
            not self.over.is_set()
        )


def test_killed_at_any_moment_a_job_ends_with_the_very_same_adapter(
    night: Platform, other_worker: Path, tmp_path: Path
) -> None:
    moments = choose_moments(SEED, MOMENTS)
    print(f"HEARTH_FAULT_SEED={SEED}")
    trainers = Trainers(night.data_dir)
    start(night, "undisturbed")
    undisturbed = finish(night, "undisturbed")
    assert undisturbed["state"] == "COMPLETED"
    expected = adapter_hash(night, "undisturbed", tmp_path)

    killed: list[Moment] = []
    jobs = 0
    with trainers.watched():
        while len(killed) < MOMENTS:
            jobs += 1
            assert jobs <= MOMENTS, f"only {killed} could be done"
            job_id = f"disturbed-{jobs}"
            chaos = Night(night, moments[len(killed) :])
            start(night, job_id)
            chaos.start()
            job = finish(night, job_id)
            chaos.over.set()
            chaos.join()
            killed += chaos.killed
            assert job["state"] == "COMPLETED", (SEED, killed, job["status"])
            assert adapter_hash(night, job_id, tmp_path) == expected, (SEED, killed)
    assert set(trainers.most_at_once.values()) == {1}, (SEED, dict(trainers.most_at_once))
    assert {moment.phase for moment in killed} == set(PHASES)
    assert {moment.victim for moment in killed} == VICTIMS
    models = {model["name"].rsplit("/", 1)[1] for model in read(night, "models?pageSize=200")["models"]}
    made = ["undisturbed", *(f"disturbed-{number}" for number in range(1, jobs + 1))]
    assert models == {"ember", *(f"{job_id}-model" for job_id in made)}
    steps = [steps_of(night, job_id) for job_id in made]
    assert steps == [list(range(1, len(steps[0]) + 1))] * len(made), "each step is told of once"
    tokens = int(undisturbed["progress"]["tokensSeen"])
    names = sorted(undisturbed["name"].replace("undisturbed", job_id) for job_id in made)
    assert ledger(night) == [(name, tokens) for name in names], "each job is paid for once"
    assert BROUGHT_ON in other_worker.read_bytes()
    assert wait_until(lambda: not list(trainers.folder.iterdir()), 30), "nothing is left of the trainers"
