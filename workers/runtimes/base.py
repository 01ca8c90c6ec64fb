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
    runtime.observe_trainer(job_uid, attempt), remove_trainer(…)
    runtime.stop_trainer(job_uid, attempt, grace_seconds)  # of several requests the earliest end counts
    runtime.list_trainers()                                # (job uid, attempt) of all that are here
    runtime.ended_trainers()                               # those known to have ended; asked often
    runtime.read_trainer_log(job_uid, attempt, start, length)   # (where it begins, what it printed)

A uid belongs to one lifetime: starting it again after it ended raises ProcessOver; make a new replica.
No call waits for an engine longer than the client's timeouts.

A cluster keeps as many replicas as it is told to by itself. There Hearth declares fleets and follows them:

    fleets.declare(FleetSpec(…, replicas=2, …))   # idempotent; FleetRefused, RuntimeUnavailable
    seen = fleets.observe(spec)                   # FleetObservation: whether all is as declared, and the
                                                  # replicas that there are, by uid
    fleets.say_serving(uid, True)                 # the cluster may take an older one away for it
    fleets.clear(uid)                             # what is left of a replica that ended
    fleets.remove(deployment_uid)                 # does not wait
    fleets.remains(deployment_uid)                # FleetObservation: what is left of it, until nothing is
    fleets.known() -> frozenset of deployments' uids
    fleets.take_news() -> FleetNews: of what something has changed since the last time

A restart of a container is a new uid there too, and engines are asked as above. Trainers are started,
observed and stopped there as on a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from controlplane.regions import ANYWHERE, Regions
from workers.runtimes.process import ProcessState

__all__ = [
    "AdapterRefused",
    "AdapterSource",
    "Endpoint",
    "EngineFailure",
    "EnginePhase",
    "EngineUnreachable",
    "Engines",
    "FleetNews",
    "FleetObservation",
    "FleetRefused",
    "FleetSpec",
    "Fleets",
    "ModelFile",
    "ModelSource",
    "NeverFits",
    "NoCapacity",
    "ProcessState",
    "ReplicaObservation",
    "ReplicaSpec",
    "Runtime",
    "RuntimeUnavailable",
    "TrainerObservation",
    "TrainerSpec",
    "Trainers",
    "Waiting",
]


class NoCapacity(Exception):
    """The node cannot take another process now; the message says what is short. Worth another try later."""


class NeverFits(NoCapacity):
    """The node has not as much as is asked for, however long one waits."""


class EngineUnreachable(Exception):
    """The engine does not answer. It may be starting, overloaded or gone; observe it to tell."""


class AdapterRefused(Exception):
    """The engine read the adapter and refused it; the message is its reason. Trying again changes nothing."""


class RuntimeUnavailable(Exception):
    """The runtime cannot be asked now, and what it runs goes on; the message says why."""


class FleetRefused(Exception):
    """What was declared cannot be; trying the same again changes nothing."""

    def __init__(self, reason: str, message: str, code: str = "FAILED_PRECONDITION") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


class Waiting(StrEnum):
    """Why a trainer that was started, or is to be, is not at work."""

    NO_CAPACITY = "NO_CAPACITY"
    WAITING_FOR_NODE = "WAITING_FOR_NODE"
    IMAGE_NOT_PULLED = "IMAGE_NOT_PULLED"
    NODE_LOST = "NODE_LOST"
    CLUSTER_UNAVAILABLE = "CLUSTER_UNAVAILABLE"


class EnginePhase(StrEnum):
    SCHEDULING = "SCHEDULING"
    """Waiting for a place, or for the image of its program."""
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
    task: str = "generate"
    """What it is to do, one of `controlplane.checks.architectures`."""
    ngram_length: int = 0
    """Of the last tokens how many are looked for earlier, to guess those that follow; 0 guesses none."""
    draft_tokens: int = 1
    """Guessed at a time."""
    long_prompt: bool = False
    """Prompts are read in larger steps, on GPUs."""
    draft: ModelSource | None = None
    """The smaller model that guesses them, instead of the text itself."""

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """All that has to be on the node before the engine starts."""
        return (self.model, self.draft) if self.draft else (self.model,)


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
    message: str = ""
    """Why it is not further, in the cluster's words."""
    reason: str = ""
    leaving: bool = False
    """The cluster is stopping it."""
    serving: bool = False
    """The cluster was told that it serves all that it should."""
    generation: int = 0
    """Of the fleet that it was started for."""
    endpoint: Endpoint | None = None
    """Where it listens, where the cluster chooses that."""
    accelerators: int = 0
    """GPUs that it holds, where the cluster chooses that."""


@dataclass(frozen=True)
class FleetSpec:
    """As many replicas of one engine as a cluster is to keep."""

    deployment_uid: str
    deployment_name: str
    """In full: accounts/…/deployments/…"""
    account_id: str
    generation: int
    replicas: int
    engine: ReplicaSpec
    """Without a uid and an address: each replica gets its own from the cluster."""
    accelerator_type: str
    accelerator_count: int
    """0 lets the model's size decide."""
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """The model's config.json, for the memory that its engine needs."""
    check_size: bool = True
    regions: Regions = ANYWHERE
    draft_config: Mapping[str, Any] = field(default_factory=dict)
    """The same of the model that guesses for it."""


@dataclass(frozen=True)
class FleetObservation:
    replicas: Mapping[str, ReplicaObservation] = field(default_factory=dict)
    settled: bool = False
    """Everything is there as it was declared."""
    exists: bool = False
    """Something of it is there."""
    reason: str = ""
    message: str = ""
    """Why there are fewer replicas than wanted: a quota, for one."""
    region: str = ""
    """Where it is placed; empty where that has no name, and of what is to go."""


@dataclass(frozen=True)
class TrainerSpec:
    """One attempt at a fine-tuning job. `document` becomes SPEC.json of `python -m workers.training`."""

    job_uid: str
    attempt: int
    document: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to what every process on the node gets, and kept in no file: the user's own keys."""
    accelerator_count: int = 1
    model_facts: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the base model, for the memory that training it needs."""


@dataclass(frozen=True)
class TrainerObservation:
    state: ProcessState
    exit_code: int | None = None
    signal: int | None = None
    stopped: bool = False
    log_tail: str = ""
    """The last output, once it has ended."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """`total` and `available` bytes of the node, or of its container, shortly before it ended, and the
    kernel's `oom_kills` while it ran; empty where that is not known."""
    reason: str = ""
    """One of `Waiting`."""
    message: str = ""
    """Why it is not at work although it was started, or does not end although it was stopped."""


@dataclass(frozen=True)
class FleetNews:
    """What clusters have told that fleets are to be looked at for."""

    deployments: frozenset[str] = frozenset()
    """The uids of those of which something has changed."""
    accounts: frozenset[str] = frozenset()
    """The ids of those of whose namespaces something has changed."""
    returned: bool = False
    """Whether a cluster can be seen again that could not."""

    def __or__(self, other: FleetNews) -> FleetNews:
        return FleetNews(
            self.deployments | other.deployments,
            self.accounts | other.accounts,
            self.returned or other.returned,
        )


class Engines(Protocol):
    """What is asked of an engine, wherever it runs."""

    def prove_base(self, replica_uid: str) -> None: ...

    def load_adapter(self, replica_uid: str, adapter: AdapterSource) -> None: ...

    def prove_adapter(self, replica_uid: str, name: str) -> bool: ...

    def unload_adapter(self, replica_uid: str, name: str) -> None: ...

    def list_adapters(self, replica_uid: str) -> frozenset[str]: ...


class Fleets(Engines, Protocol):
    """A cluster that keeps replicas by itself."""

    def declare(self, spec: FleetSpec) -> None: ...

    def observe(self, spec: FleetSpec) -> FleetObservation: ...

    def say_serving(self, replica_uid: str, serving: bool) -> None: ...

    def clear(self, replica_uid: str) -> None: ...

    def note(self, deployment_uid: str, reason: str, message: str, *, warning: bool) -> None: ...

    def remove(self, deployment_uid: str) -> None: ...

    def remains(self, deployment_uid: str) -> FleetObservation: ...

    def known(self) -> frozenset[str]: ...

    def take_news(self) -> FleetNews:
        """What has changed since the last time; asked often."""
        ...


class Trainers(Protocol):
    """Where fine-tuning jobs train. All but `ended_trainers` may raise RuntimeUnavailable on a cluster."""

    def start_trainer(self, spec: TrainerSpec) -> None: ...

    def observe_trainer(self, job_uid: str, attempt: int) -> TrainerObservation: ...

    def stop_trainer(self, job_uid: str, attempt: int, grace_seconds: float = ...) -> None: ...

    def list_trainers(self) -> frozenset[tuple[str, int]]: ...

    def ended_trainers(self) -> frozenset[tuple[str, int]]:
        """Empty where that cannot be had for next to nothing: then jobs are looked at once a second."""
        ...

    def remove_trainer(self, job_uid: str, attempt: int) -> bool: ...

    def read_trainer_log(self, job_uid: str, attempt: int, start: int, length: int) -> tuple[int, bytes]: ...


class Runtime(Engines, Trainers, Protocol):
    def choose_endpoint(self) -> Endpoint: ...

    def start_replica(self, spec: ReplicaSpec) -> None: ...

    def observe_replica(self, replica_uid: str) -> ReplicaObservation: ...

    def stop_replica(self, replica_uid: str) -> None: ...

    def remove_replica(self, replica_uid: str) -> bool: ...

    def list_replicas(self) -> frozenset[str]: ...
