"""Killing the processes of a platform at chosen moments of a job, and watching that no two trainers run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

TRAINER = "trainer"
SHIM = "shim"
FROZEN = "frozen stores"
STORES = ("postgres", "valkey", "seaweedfs")
TRAINERS = (TRAINER, TRAINER, SHIM)
SERVICES = ("worker", "worker", "api", "postgres", "valkey", "seaweedfs", "beat")
VICTIMS = frozenset({*TRAINERS, *SERVICES, FROZEN})
TRAINER_SHARE = 0.4
FROZEN_SECONDS = float(os.environ.get("HEARTH_FAULT_FROZEN_SECONDS") or 60)

# What a trainer leaves in its folder when it comes to a phase, in their order; and whether it lives then.
PHASES = {
    "starting": "command.json",
    "staging": "work",
    "tokenizing": "work/*.arrow",
    "training": "work/checkpoints",
    "checkpoint": "work/checkpoints/checkpoint-*",
    "uploading": "work/adapter",
    "registering": "exit.json",
}
LAST_PHASE = "registering"
ENDED_WELL = '"exit_code": 0'
LONGEST_DELAY = {LAST_PHASE: 0.05}
"""It is short: what comes later finds the job completed."""
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Moment:
    """Kill `victim` so many seconds after a trainer has come to a phase."""

    phase: str
    delay: float
    victim: str

    def __str__(self) -> str:
        return f"{self.victim} {self.delay:.2f} s into {self.phase}"


def choose_moments(seed: int, count: int) -> list[Moment]:
    """Moments of all phases in turn, with every victim among them where there are enough."""
    random = Random(seed)
    while True:
        moments = draw_moments(random, count)
        if count < 2 * len(VICTIMS) or {moment.victim for moment in moments} == VICTIMS:
            return moments


def draw_moments(random: Random, count: int) -> list[Moment]:
    """Between two checkpoints trainers die twice at most: thrice fails a job.

    All that keeps anything is frozen once, which is worse than its end: nobody is told that it is away.
    """
    phases = [list(PHASES)[number % len(PHASES)] for number in range(count)]
    frozen = random.choice([number for number, phase in enumerate(phases) if phase == "training"])
    deaths, moments = 0, []
    for number, phase in enumerate(phases):
        dies = phase != LAST_PHASE and deaths < 2 and random.random() < TRAINER_SHARE
        victim = random.choice(TRAINERS if dies else SERVICES)
        deaths = 0 if phase == "checkpoint" else deaths + dies
        delay = random.uniform(0.0, LONGEST_DELAY.get(phase, 0.8))
        moments.append(Moment(phase, delay, FROZEN if number == frozen else victim))
    return moments


@dataclass
class Trainers:
    """The trainers of a platform, seen from outside: by their folders and in /proc."""

    data_dir: Path
    most_at_once: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By job: how many attempts were alive in one look."""

    @property
    def folder(self) -> Path:
        return self.data_dir / "run" / "trainers"

    def alive(self) -> dict[int, Path]:
        """The folder of each trainer process, by pid."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                cwd = (entry / "cwd").readlink()
                if cwd.parent == self.folder and b"workers.training" in (entry / "cmdline").read_bytes():
                    found[int(entry.name)] = cwd
            except OSError:
                continue
        return found

    def look(self) -> None:
        attempts = defaultdict(set)
        for cwd in self.alive().values():
            job_uid, _, attempt = cwd.name.rpartition("-")
            attempts[job_uid].add(attempt)
        for job_uid, seen in attempts.items():
            self.most_at_once[job_uid] = max(self.most_at_once[job_uid], len(seen))

    def reached(self, phase: str) -> set[str]:
        """The folders of trainers that have come to the phase; at the last, those that have ended well."""
        try:
            found = {path for path in self.folder.iterdir() if any(path.glob(PHASES[phase]))}
            if phase == LAST_PHASE:
                return {path.name for path in found if ENDED_WELL in (path / PHASES[phase]).read_text()}
            return {path.name for path in found if not (path / PHASES[LAST_PHASE]).exists()}
        except OSError:  # removed in this moment, or not there yet
            return set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        yield
        done.set()
        thread.join()


def kill(data_dir: Path, victim: str) -> bool:
    """SIGKILL; False when it is not there to be killed."""
    if victim == FROZEN:
        return freeze([pid for name in STORES for pid in with_children(part_pid(data_dir, name))])
    if victim in TRAINERS:
        alive = list(Trainers(data_dir).alive())
        pids = alive if victim == TRAINER else sorted({parent_of(pid) for pid in alive} - {*alive, 1})
    else:
        pids = [pid for pid in [part_pid(data_dir, victim)] if pid]
    hit = [send(pid, signal.SIGKILL) for pid in pids]
    return any(hit)


def part_pid(data_dir: Path, name: str) -> int:
    """0 while it is not up."""
    part = json.loads((data_dir / "status.json").read_text())["parts"][name]
    return int(part["pid"] or 0) if part["state"] == "READY" else 0


def freeze(pids: list[int]) -> bool:
    """Stop them for a while; they answer nobody, and nobody's connection ends. False where one is away."""
    if 0 in pids:
        return False
    stopped = [pid for pid in pids if send(pid, signal.SIGSTOP)]
    time.sleep(FROZEN_SECONDS)
    for pid in stopped:
        send(pid, signal.SIGCONT)
    return True


def with_children(pid: int) -> list[int]:
    """A process and those that it has started; PostgreSQL has one for each connection."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid, *(number for number in numbers if pid and parent_of(number) == pid)]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 1


def send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def await_phase(trainers: Trainers, phase: str, over: threading.Event) -> bool:
    """Wait until a trainer comes to a phase; False when all is over."""
    while not over.is_set():
        if trainers.reached(phase):
            return True
        time.sleep(LOOK_SECONDS)
    return False
