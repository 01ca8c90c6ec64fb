"""The local runtime without an engine: ports, GPUs, environments, and the lifetime of a uid."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controlplane.config import Settings
from workers.runtimes import local
from workers.runtimes.accelerators import assign_accelerators, list_accelerators
from workers.runtimes.base import (
    EnginePhase,
    EngineUnreachable,
    ModelSource,
    NeverFits,
    NoCapacity,
    ProcessState,
    ReplicaSpec,
    TrainerSpec,
)
from workers.runtimes.client import Probe, adapter_differs, largest_difference
from workers.runtimes.local import LocalRuntime
from workers.runtimes.process import (
    ProcessOver,
    observe_process,
    read_environment,
    start_process,
    stop_process,
    write_json,
)

Until = Callable[..., None]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
ENVIRON = {"PATH": "/bin", "HOME": "/root", "HEARTH_DATABASE_URL": "postgresql://secret", "OTHER": "x"}


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return Settings(
        database_url="postgresql://user:secret@db/hearth",
        redis_url="redis://broker",
        s3_endpoint="http://s3:1",
        s3_access_key="key",
        s3_secret_key="s3-secret",
        data_dir=tmp_path / "data",
    )


@dataclass
class Started:
    """In the place of `start_process`: writes down what would run, and runs something idle."""

    argv: dict[str, list[str]] = field(default_factory=dict)
    env: dict[str, dict[str, str]] = field(default_factory=dict)
    directories: list[Path] = field(default_factory=list)

    def start(
        self, directory: Path, argv: Sequence[str], env: Mapping[str, str], secrets: Iterable[str] = ()
    ) -> None:
        self.argv[directory.name], self.env[directory.name] = list(argv), dict(env)
        self.directories.append(directory)
        start_process(directory, SLEEP, env, secrets)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, until: Until) -> Iterator[Started]:
    record = Started()
    monkeypatch.setattr(local, "start_process", record.start)
    yield record
    for directory in record.directories:
        stop_process(directory, 0)
        until(lambda directory=directory: observe_process(directory).state is not ProcessState.RUNNING)


def replica(uid: str, port: int = 20001, **changes: Any) -> ReplicaSpec:
    model = ModelSource("bb", "accounts/a/models/bb/", ())
    return ReplicaSpec(uid, "base", model, "127.0.0.1", port, **changes)


def test_an_engine_gets_the_object_store_and_no_other_secret(node: Settings, started: Started) -> None:
    LocalRuntime(node, ENVIRON).start_replica(replica("aa"))
    env = started.env["aa"]
    assert env["HEARTH_S3_SECRET_KEY"] == "s3-secret"
    assert env["HEARTH_DATA_DIR"] == str(node.data_dir)
    assert not {"HEARTH_DATABASE_URL", "OTHER"} & set(env)
    assert "postgresql" not in str(env.values())
    assert started.argv["aa"][1:] == ["-m", "workers.runtimes.engine", "SPEC.json"]


def test_a_supervisors_lock_is_handed_down(node: Settings, started: Started) -> None:
    LocalRuntime(node, ENVIRON | {"HEARTH_SUPERVISOR_LOCK": "/proc/self/nothing"}).start_replica(
        replica("aa")
    )
    assert started.env["aa"]["HEARTH_SUPERVISOR_LOCK"] == "/proc/self/nothing"


def test_a_replica_is_observed_from_start_to_removal(node: Settings, started: Started, until: Until) -> None:
    runtime = LocalRuntime(node, ENVIRON)
    assert runtime.observe_replica("aa").state is ProcessState.ABSENT
    runtime.start_replica(replica("aa"))
    runtime.start_replica(replica("aa"))
    seen = runtime.observe_replica("aa")
    assert (seen.state, seen.phase, seen.healthy) == (ProcessState.RUNNING, EnginePhase.STAGING, False)
    assert not runtime.remove_replica("aa")
    runtime.stop_replica("aa")
    until(lambda: runtime.observe_replica("aa").state is ProcessState.EXITED)
    seen = runtime.observe_replica("aa")
    assert (seen.stopped, seen.failure) == (True, None)
    with pytest.raises(ProcessOver):
        runtime.start_replica(replica("aa"))
    until(lambda: runtime.remove_replica("aa"))
    assert runtime.list_replicas() == frozenset()


def test_a_trainer_runs_with_its_document_and_its_own_keys(node: Settings, started: Started) -> None:
    runtime = LocalRuntime(node, ENVIRON)
    runtime.start_trainer(TrainerSpec("cc", 2, {"job_uid": "cc"}, {"WANDB_API_KEY": "w"}))
    assert (node.data_dir / "run/trainers/cc-2/SPEC.json").read_text() == '{"job_uid": "cc"}'
    assert started.env["cc-2"]["WANDB_API_KEY"] == "w"
    assert runtime.observe_trainer("cc", 2).state is ProcessState.RUNNING
    assert runtime.observe_trainer("cc", 1).state is ProcessState.ABSENT


def test_what_a_trainer_has_printed_can_be_read_while_it_runs(node: Settings, started: Started) -> None:
    runtime = LocalRuntime(node, ENVIRON)
    assert runtime.read_trainer_log("cc", 2, 0, 100) == (0, b"")
    runtime.start_trainer(TrainerSpec("cc", 2, {}))
    (node.data_dir / "run/trainers/cc-2/log.txt").write_bytes(b"loading\nstep 1\n")
    assert runtime.read_trainer_log("cc", 2, 8, 100) == (8, b"step 1\n")


def test_an_uid_is_no_path(node: Settings) -> None:
    for uid in ("..", "a/b", "", "A" * 40):
        with pytest.raises(ValueError, match="no uid"):
            LocalRuntime(node, ENVIRON).observe_replica(uid)


def test_asking_an_absent_replica_says_that_it_is_unreachable(node: Settings) -> None:
    with pytest.raises(EngineUnreachable):
        LocalRuntime(node, ENVIRON).list_adapters("aa")


def test_ports_are_free_and_promised_once(
    node: Settings, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = LocalRuntime(node, ENVIRON)
    with socket.socket() as taken:
        first = runtime.choose_endpoint().port
        taken.bind(("127.0.0.1", first))
        second = runtime.choose_endpoint().port
        monkeypatch.setattr(local, "PORTS", range(second, second + 1))
        monkeypatch.setattr(local, "PORT_TRIES", 1)
        assert runtime.choose_endpoint().port == second
        runtime.start_replica(replica("aa", second))
        with pytest.raises(NoCapacity, match="no free port"):
            runtime.choose_endpoint()


def test_each_process_gets_gpus_of_its_own_until_there_are_none(
    node: Settings, started: Started, until: Until
) -> None:
    runtime = LocalRuntime(node, ENVIRON | {"HEARTH_LOCAL_GPUS": "0,1,2"})
    runtime.start_replica(replica("aa"))
    runtime.start_trainer(TrainerSpec("cc", 1, {}))
    with pytest.raises(NoCapacity, match="2 of the node's 3 GPUs are needed and 1 are free"):
        runtime.start_replica(replica("dd", accelerator_count=2))
    with pytest.raises(NeverFits, match="4 GPUs are needed, and the node has 3"):
        runtime.start_trainer(TrainerSpec("bb", 1, {}, {}, 4))
    runtime.start_replica(replica("ee"))
    held = [started.env[name]["CUDA_VISIBLE_DEVICES"] for name in ("aa", "cc-1", "ee")]
    assert held == ["0", "1", "2"]
    runtime.stop_replica("aa")
    until(lambda: runtime.observe_replica("aa").state is ProcessState.EXITED)
    runtime.start_replica(replica("ff"))
    assert read_environment(started.directories[-1])["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_node_without_gpus_gives_none_and_has_room(tmp_path: Path) -> None:
    assert list_accelerators({"HEARTH_LOCAL_GPUS": ""}) == ()
    assert list_accelerators({"HEARTH_LOCAL_GPUS": "0, GPU-ab"}) == ("0", "GPU-ab")
    assert assign_accelerators(tmp_path / "a", 8, (), []) == ()


def test_a_record_left_by_an_ended_process_holds_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / "command.json", {})
    (tmp_path / "old" / "accelerators.json").write_text('["0"]')
    assert assign_accelerators(tmp_path / "new", 1, ("0",), [tmp_path / "old"]) == ("0",)


def probe(*logprobs: float) -> Probe:
    return Probe(tuple({"token_id:5": value} for value in logprobs))


# base, adapter, the base's own noise; whether the adapter is proven.
DIFFERENCES = [
    (probe(-1.0, -2.0), probe(-1.0, -2.0), 0.0, False),
    (probe(-1.0, -2.0), probe(-1.0, -2.001), 0.0, True),
    (probe(-1.0, -2.0), probe(-1.0, -2.001), 0.001, False),
    (probe(-1.0, -2.0), probe(-1.0, -2.5), 0.001, True),
    (probe(-1.0), Probe(({"token_id:9": -1.0},)), 0.0, True),
]


@pytest.mark.parametrize(("base", "adapter", "noise", "proven"), DIFFERENCES)
def test_an_adapter_is_proven_by_a_difference_beyond_the_noise(
    base: Probe, adapter: Probe, noise: float, proven: bool
) -> None:
    assert adapter_differs(base, adapter, noise) is proven
    assert largest_difference(base, base) == 0.0
