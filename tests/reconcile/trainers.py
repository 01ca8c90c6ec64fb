"""Trainers that only pretend, and the files that real ones would leave."""

from __future__ import annotations

import hashlib
import json

from controlplane.resources.tables import FineTuningJobRow
from workers.runtimes.base import NeverFits, NoCapacity, ProcessState, TrainerObservation

SETTINGS = {
    "base_model": "accounts/hearth/models/base",
    "warm_start_from": "",
    "dataset": "accounts/hearth/datasets/data",
    "evaluation_dataset": "",
    "epochs": 1.0,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "batch_size": 16,
    "micro_batch_size": 0,
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_target_modules": [],
    "cutoff_length": 512,
    "evaluation": False,
    "evaluation_split": 0.15,
    "early_stop": False,
    "templates": {},
}


class TrainerStandIn:
    """Remembers what was started, and reports what a test has set."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, dict]] = []
        self.secrets: dict[int, dict[str, str]] = {}
        """What each attempt was given by its environment."""
        self.seen: dict[int, TrainerObservation] = {}
        self.said: dict[int, bytes] = {}
        """What each attempt has printed so far."""
        self.kept_from: dict[int, int] = {}
        """From which byte on the node still has it."""
        self.grace: dict[int, float] = {}
        """How long each attempt that was stopped had for it."""
        self.full = False
        self.too_small = False

    def start_trainer(self, spec):
        if self.too_small:
            raise NeverFits("no capacity: 8 GPUs are needed, and the node has 1")
        if self.full:
            raise NoCapacity("no free GPU: 1 of 1 in use")
        self.started.append((spec.job_uid, spec.attempt, dict(spec.document)))
        self.secrets[spec.attempt] = dict(spec.env)
        self.seen[spec.attempt] = TrainerObservation(ProcessState.RUNNING)

    def observe_trainer(self, job_uid, attempt):
        return self.seen.get(attempt, TrainerObservation(ProcessState.ABSENT))

    def stop_trainer(self, job_uid, attempt, grace_seconds=60.0):
        self.grace[attempt] = grace_seconds
        self.seen[attempt] = TrainerObservation(ProcessState.EXITED, exit_code=143, stopped=True)

    def remove_trainer(self, job_uid, attempt):
        self.seen.pop(attempt, None)
        return True

    def list_trainers(self):
        return frozenset((job_uid, attempt) for job_uid, attempt, _ in self.started if attempt in self.seen)

    def ended_trainers(self):
        ended = {attempt for attempt, seen in self.seen.items() if seen.state is ProcessState.EXITED}
        return frozenset((uid, attempt) for uid, attempt in self.list_trainers() if attempt in ended)

    def read_trainer_log(self, job_uid, attempt, start, length):
        first = max(start, self.kept_from.get(attempt, 0))
        return first, self.said.get(attempt, b"")[first : first + length]


def put_json(store, row, name, value):
    store.put_bytes(row.prefix + name, json.dumps(value).encode())


def put_adapter(store, row):
    content = b"weights"
    store.put_bytes(row.prefix + "adapter/adapter_model.safetensors", content)
    file = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    put_json(store, row, "adapter/manifest.json", {"files": {"adapter_model.safetensors": file}})


def succeed(store, row):
    put_adapter(store, row)
    put_json(store, row, "result.json", {"outcome": "succeeded", "metrics": {"train_loss": 0.01}})


def end_well(object_store, db, uid):
    with db.session() as session:
        succeed(object_store, session.get_one(FineTuningJobRow, uid))
