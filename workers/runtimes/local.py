"""The runtime of one machine: engines and trainers are processes of it.

DATA_DIR/run/replicas/<replica uid>/          SPEC.json, and what `process` keeps there
DATA_DIR/run/trainers/<job uid>-<attempt>/
DATA_DIR/cache/                               see `node_cache`
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from workers.runtimes.accelerators import assign_accelerators, held_accelerators, list_accelerators
from workers.runtimes.base import (
    AdapterSource,
    Endpoint,
    EngineFailure,
    EnginePhase,
    EngineUnreachable,
    NoCapacity,
    ReplicaObservation,
    ReplicaSpec,
    TrainerObservation,
    TrainerSpec,
)
from workers.runtimes.cache_uses import Keeper, end_uses, in_bytes
from workers.runtimes.client import EngineClient, prove_adapter
from workers.runtimes.engine import staged_folders
from workers.runtimes.engine_failure import ended_by_signal, failure_reason
from workers.runtimes.node_cache import stage_adapter
from workers.runtimes.node_settings import node_environment
from workers.runtimes.process import (
    EXIT_RECORD,
    SUPERVISOR_LOCK_VARIABLE,
    ProcessObservation,
    ProcessOver,
    ProcessState,
    log_tail,
    observe_process,
    read_log,
    remove_process,
    start_process,
    stop_process,
    write_json,
)
from workers.runtimes.vllm import DRAIN_SECONDS, ENGINE_SPEC, PHASE_FILE, EngineSpec

REPLICA_GRACE_SECONDS = DRAIN_SECONDS + 10.0
TRAINER_GRACE_SECONDS = 60.0
"""A trainer writes and uploads a checkpoint when it is told to stop."""
# Below the range that the system gives to outgoing connections: one of those could take the port first.
PORTS = range(20000, 32768)
PORT_TRIES = 200
UID = re.compile(r"[0-9a-f-]{1,36}")
PROJECT_ROOT = Path(__file__).resolve().parents[2]


class LocalRuntime:
    """Keeps nothing in memory that matters: any worker of the machine sees the same."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environ = dict(os.environ if environ is None else environ)
        self._run_dir = settings.data_dir.absolute() / "run"
        self._cache_dir = settings.data_dir.absolute() / "cache"

    def choose_endpoint(self) -> Endpoint:
        """A port that nobody listens on now, nor a replica of this node is about to."""
        promised = {spec.replica.port for spec in self._specs()}
        host = self._settings.replica_host
        for port in random.sample(PORTS, PORT_TRIES):
            if port not in promised and _can_bind(host, port):
                return Endpoint(host, port)
        raise NoCapacity(f"no capacity: no free port between {PORTS.start} and {PORTS.stop}")

    def start_replica(self, spec: ReplicaSpec) -> None:
        """Start the engine; nothing happens where it runs. Raises NoCapacity, ProcessOver, OSError."""
        directory = self._replica_dir(spec.replica_uid)
        argv = [sys.executable, "-m", "workers.runtimes.engine", "SPEC.json"]
        with self._node_lock():
            if not _is_to_start(directory):
                return
            env = self._environment(directory, spec.accelerator_count)
            threads = 0 if self._accelerators else max(1, (os.cpu_count() or 2) - 1)
            engine = EngineSpec(spec, self._cache_dir, threads)
            write_json(directory / "SPEC.json", ENGINE_SPEC.dump_python(engine, mode="json"))
            start_process(directory, argv, env)

    def observe_replica(self, replica_uid: str) -> ReplicaObservation:
        directory = self._replica_dir(replica_uid)
        seen = observe_process(directory)
        if seen.state is ProcessState.RUNNING:
            return self._observe_running(directory)
        failure = None if seen.stopped else _failure(directory, seen)
        return ReplicaObservation(seen.state, stopped=seen.stopped, failure=failure)

    def stop_replica(self, replica_uid: str) -> None:
        stop_process(self._replica_dir(replica_uid), REPLICA_GRACE_SECONDS)

    def remove_replica(self, replica_uid: str) -> bool:
        return remove_process(self._replica_dir(replica_uid))

    def list_replicas(self) -> frozenset[str]:
        """Every replica that has a directory here, for finding those that no row speaks of."""
        return frozenset(directory.name for directory in self._directories("replicas"))

    def replica_log(self, replica_uid: str, lines: int = 40) -> str:
        return log_tail(self._replica_dir(replica_uid), lines)

    def prove_base(self, replica_uid: str) -> None:
        """Get a token from the base model: a healthy engine may still end at its first request.

        Raises EngineUnreachable.
        """
        with self._client(replica_uid) as client:
            replica = self._spec(replica_uid).replica
            client.prove(replica.served_name, replica.task)

    def load_adapter(self, replica_uid: str, adapter: AdapterSource) -> None:
        """Raises StagingError, AdapterRefused, EngineUnreachable."""
        model = adapter.model
        keeper = Keeper(_checked_uid(replica_uid), in_bytes(self._settings.cache_gib))
        with self._client(replica_uid) as client:
            kept = staged_folders(self._spec(replica_uid)) | client.adapter_folders()
            end_uses(self._cache_dir, keeper.holder, but=kept)
            path = stage_adapter(self._store, model.prefix, model.files, self._cache_dir, model.uid, keeper)
            client.load_adapter(adapter.name, str(path))

    def prove_adapter(self, replica_uid: str, name: str) -> bool:
        """False when the engine answers for the adapter exactly as for the base. Raises EngineUnreachable."""
        with self._client(replica_uid) as client:
            return prove_adapter(client, self._spec(replica_uid).replica.served_name, name)

    def unload_adapter(self, replica_uid: str, name: str) -> None:
        with self._client(replica_uid) as client:
            client.unload_adapter(name)

    def list_adapters(self, replica_uid: str) -> frozenset[str]:
        with self._client(replica_uid) as client:
            return client.models() - {self._spec(replica_uid).replica.served_name}

    def start_trainer(self, spec: TrainerSpec) -> None:
        """Start the attempt; nothing happens where it runs. Raises NoCapacity, ProcessOver, OSError."""
        directory = self._trainer_dir(spec.job_uid, spec.attempt)
        argv = [sys.executable, "-m", "workers.training", "SPEC.json"]
        with self._node_lock():
            if not _is_to_start(directory):
                return
            env = self._environment(directory, spec.accelerator_count) | dict(spec.env)
            write_json(directory / "SPEC.json", spec.document)
            start_process(directory, argv, env, secrets=spec.env)

    def observe_trainer(self, job_uid: str, attempt: int) -> TrainerObservation:
        directory = self._trainer_dir(job_uid, attempt)
        seen = observe_process(directory)
        ended = seen.state in {ProcessState.EXITED, ProcessState.LOST}
        said = log_tail(directory) if ended else ""
        return TrainerObservation(seen.state, seen.exit_code, seen.signal, seen.stopped, said, seen.memory)

    def stop_trainer(self, job_uid: str, attempt: int, grace_seconds: float = TRAINER_GRACE_SECONDS) -> None:
        stop_process(self._trainer_dir(job_uid, attempt), grace_seconds)

    def remove_trainer(self, job_uid: str, attempt: int) -> bool:
        return remove_process(self._trainer_dir(job_uid, attempt))

    def list_trainers(self) -> frozenset[tuple[str, int]]:
        return frozenset(_job_and_attempt(directory) for directory in self._directories("trainers"))

    def ended_trainers(self) -> frozenset[tuple[str, int]]:
        return frozenset(
            _job_and_attempt(directory)
            for directory in self._directories("trainers")
            if (directory / EXIT_RECORD).exists()
        )

    def read_trainer_log(self, job_uid: str, attempt: int, start: int, length: int) -> tuple[int, bytes]:
        return read_log(self._trainer_dir(job_uid, attempt), start, length)

    def accelerators_in_use(self) -> tuple[int, int]:
        """How many of this node's GPUs are held, and how many there are."""
        known = self._accelerators
        return held_accelerators(known, self._all_directories()), len(known)

    def _observe_running(self, directory: Path) -> ReplicaObservation:
        try:
            phase = EnginePhase((directory / PHASE_FILE).read_text())
        except (OSError, ValueError):
            phase = EnginePhase.STAGING
        if phase is EnginePhase.STAGING:
            return ReplicaObservation(ProcessState.RUNNING, phase)
        with self._client(directory.name) as client:
            healthy = client.health()
        return ReplicaObservation(ProcessState.RUNNING, EnginePhase.SERVING if healthy else phase, healthy)

    def _environment(self, directory: Path, accelerator_count: int) -> dict[str, str]:
        env = node_environment(self._settings, self._environ)
        env |= {"PYTHONUNBUFFERED": "1", "TMPDIR": str(directory / "tmp")}
        if PROJECT_ROOT.name != "site-packages":  # From a checkout ours is found by its path.
            env["PYTHONPATH"] = str(PROJECT_ROOT)
        if lock := self._environ.get(SUPERVISOR_LOCK_VARIABLE):
            env[SUPERVISOR_LOCK_VARIABLE] = lock
        gpus = self._accelerators
        chosen = assign_accelerators(directory, max(1, accelerator_count), gpus, self._all_directories())
        (directory / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
        return env | {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}

    @cached_property
    def _accelerators(self) -> tuple[str, ...]:
        return list_accelerators(self._environ)

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore.from_settings(self._settings)

    def _client(self, replica_uid: str) -> EngineClient:
        replica = self._spec(replica_uid).replica
        return EngineClient(Endpoint(replica.host, replica.port).url)

    def _spec(self, replica_uid: str) -> EngineSpec:
        try:
            return ENGINE_SPEC.validate_json((self._replica_dir(replica_uid) / "SPEC.json").read_bytes())
        except FileNotFoundError:
            raise EngineUnreachable(f"replica {replica_uid} is not on this node") from None

    def _specs(self) -> Iterator[EngineSpec]:
        for directory in self._directories("replicas"):
            with suppress(EngineUnreachable):
                yield self._spec(directory.name)

    def _directories(self, kind: str) -> list[Path]:
        parent = self._run_dir / kind
        return sorted(parent.iterdir()) if parent.exists() else []

    def _all_directories(self) -> list[Path]:
        return [*self._directories("replicas"), *self._directories("trainers")]

    def _replica_dir(self, replica_uid: str) -> Path:
        return self._run_dir / "replicas" / _checked_uid(replica_uid)

    def _trainer_dir(self, job_uid: str, attempt: int) -> Path:
        return self._run_dir / "trainers" / f"{_checked_uid(job_uid)}-{attempt:d}"

    @contextmanager
    def _node_lock(self) -> Iterator[None]:
        """One start at a time: GPUs are chosen by looking at who has which."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        with open(self._run_dir / "node.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _job_and_attempt(directory: Path) -> tuple[str, int]:
    job_uid, _, attempt = directory.name.rpartition("-")
    return job_uid, int(attempt)


def _is_to_start(directory: Path) -> bool:
    """False where it runs; raises ProcessOver where it ended."""
    state = observe_process(directory).state
    if state in {ProcessState.EXITED, ProcessState.LOST}:
        raise ProcessOver(f"{directory.name} has ended: start a new one under another uid")
    return state is ProcessState.ABSENT


def _failure(directory: Path, seen: ProcessObservation) -> EngineFailure | None:
    if seen.state is ProcessState.ABSENT:
        return None
    if seen.state is ProcessState.LOST:
        lost = "the machine or the supervisor of the engine died"
        return EngineFailure("UNAVAILABLE", "LOST", lost, retryable=True)
    tail = log_tail(directory, lines=400)
    return failure_reason(tail) if seen.signal is None else ended_by_signal(seen.signal, tail)


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind((host, port))
        except OSError:
            return False
    return True


def _checked_uid(uid: str) -> str:
    if not UID.fullmatch(uid):
        raise ValueError(f"{uid!r} is no uid")
    return uid
