"""The runtime: where replicas (engines) and trainers run. One interface for processes and for Kubernetes.

For the reconcilers, in short:

    endpoint = runtime.choose_endpoint()                   # host and port; store them in the replica's row
    runtime.start_replica(ReplicaSpec(…, endpoint.host, endpoint.port, …))   # idempotent; NoCapacity
    seen = runtime.observe_replica(uid)                    # ReplicaObservation, never raises for a bad engine
        seen.state    ABSENT | RUNNING | EXITED | LOST     # EXITED: nothing of it is left. LOST: remove it,
                                                           # which ends what may have outlived its shim
        seen.phase    STAGING | LOADING | SERVING          # while RUNNING
        seen.healthy  /health answers                      # proves neither weights nor adapters: see below
        seen.failure  EngineFailure(code, reason, message, retryable) once it ended without being asked to
    runtime.prove_base(uid)                                # a token from the base, or EngineUnreachable
    runtime.load_adapter(uid, AdapterSource(name, model))  # stages and loads; idempotent; AdapterRefused,
                                                           # StagingError, EngineUnreachable
    runtime.prove_adapter(uid, name) -> bool               # False: the engine answers as the base does
    runtime.unload_adapter(uid, name)                      # idempotent
    runtime.list_adapters(uid) -> frozenset of names
    runtime.stop_replica(uid)                              # does not wait; observe until EXITED
    runtime.remove_replica(uid) -> bool                    # False while it still runs; frees its directory

    runtime.start_trainer(TrainerSpec(job_uid, attempt, document, env, accelerator_count))
    runtime.observe_trainer(job_uid, attempt), stop_trainer(…), remove_trainer(…)
    runtime.read_trainer_log(job_uid, attempt, start, length)   # (where it begins, what it printed)

A uid belongs to one lifetime: starting it again after it ended raises ProcessOver; make a new replica.
No call waits for an engine longer than the client's timeouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from workers.runtimes.process import ProcessState

__all__ = [
    "AdapterRefused",
    "AdapterSource",
    "Endpoint",
    "EngineFailure",
    "EnginePhase",
    "EngineUnreachable",
    "ModelFile",
    "ModelSource",
    "NoCapacity",
    "ProcessState",
    "ReplicaObservation",
    "ReplicaSpec",
    "Runtime",
    "TrainerObservation",
    "TrainerSpec",
]


class NoCapacity(Exception):
    """The node cannot take another process now; the message says what is short. Worth another try later."""


class EngineUnreachable(Exception):
    """The engine does not answer. It may be starting, overloaded or gone; observe it to tell."""


class AdapterRefused(Exception):
    """The engine read the adapter and refused it; the message is its reason. Trying again changes nothing."""


class EnginePhase(StrEnum):
    STAGING = "STAGING"
    """Bringing the weights to the node."""
    LOADING = "LOADING"
    """The engine reads the weights."""
    SERVING = "SERVING"


@dataclass(frozen=True)
class ModelFile:
    name: str
    size: int
    sha256: str
    """Empty when it is not known; then only the size is checked."""


@dataclass(frozen=True)
class ModelSource:
    """Where the files of a model lie in the object store."""

    uid: str
    prefix: str
    files: tuple[ModelFile, ...]

    @classmethod
    def from_registered(cls, uid: str, prefix: str, files: Mapping[str, Mapping[str, Any]]) -> ModelSource:
        """From the `files` column of a model: name → {"size", "sha256"}."""
        listed = tuple(
            ModelFile(name, int(facts["size"]), str(facts.get("sha256") or ""))
            for name, facts in sorted(files.items())
        )
        return cls(uid, prefix, listed)


@dataclass(frozen=True)
class AdapterSource:
    """An addon's files, and the name under which the engine is to serve it."""

    name: str
    model: ModelSource


@dataclass(frozen=True)
class Endpoint:
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class ReplicaSpec:
    """All that it takes to run one engine."""

    replica_uid: str
    served_name: str
    model: ModelSource
    host: str
    port: int
    accelerator_count: int = 1
    """GPUs for this replica, where the node has any."""
    enable_adapters: bool = False
    max_lora_rank: int = 64
    max_loras: int = 4
    """Adapters in one batch."""
    max_cpu_loras: int = 32
    """Adapters held in memory; the least used one makes room and is read again when it is asked for."""
    max_model_len: int | None = None
    precision: str = "PRECISION_UNSPECIFIED"
    chat_template: str | None = None
    tool_parser: str | None = None
    """The engine's reader of the model's own tool calls."""
    kv_cache_gib: int = 1
    """Memory of the KV cache of an engine on the CPU."""


@dataclass(frozen=True)
class EngineFailure:
    """Why an engine ended."""

    code: str
    """google.rpc name."""
    reason: str
    message: str
    """One sentence that names the root cause."""
    retryable: bool = False
    """Whether a new replica, with nothing else changed, may well succeed."""


@dataclass(frozen=True)
class ReplicaObservation:
    state: ProcessState
    phase: EnginePhase | None = None
    healthy: bool = False
    stopped: bool = False
    failure: EngineFailure | None = None


@dataclass(frozen=True)
class TrainerSpec:
    """One attempt at a fine-tuning job. `document` becomes SPEC.json of `python -m workers.training`."""

    job_uid: str
    attempt: int
    document: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to what every process on the node gets: the user's own keys, for one."""
    accelerator_count: int = 1


@dataclass(frozen=True)
class TrainerObservation:
    state: ProcessState
    exit_code: int | None = None
    signal: int | None = None
    stopped: bool = False
    log_tail: str = ""
    """The last output, once it has ended."""


class Runtime(Protocol):
    def choose_endpoint(self) -> Endpoint: ...

    def start_replica(self, spec: ReplicaSpec) -> None: ...

    def observe_replica(self, replica_uid: str) -> ReplicaObservation: ...

    def stop_replica(self, replica_uid: str) -> None: ...

    def remove_replica(self, replica_uid: str) -> bool: ...

    def list_replicas(self) -> frozenset[str]: ...

    def prove_base(self, replica_uid: str) -> None: ...

    def load_adapter(self, replica_uid: str, adapter: AdapterSource) -> None: ...

    def prove_adapter(self, replica_uid: str, name: str) -> bool: ...

    def unload_adapter(self, replica_uid: str, name: str) -> None: ...

    def list_adapters(self, replica_uid: str) -> frozenset[str]: ...

    def start_trainer(self, spec: TrainerSpec) -> None: ...

    def observe_trainer(self, job_uid: str, attempt: int) -> TrainerObservation: ...

    def stop_trainer(self, job_uid: str, attempt: int) -> None: ...

    def remove_trainer(self, job_uid: str, attempt: int) -> bool: ...

    def read_trainer_log(self, job_uid: str, attempt: int, start: int, length: int) -> tuple[int, bytes]: ...
