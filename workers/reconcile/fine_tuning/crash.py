"""Why a trainer ended that left no result, in words for the job's owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.training.errors import LESS_MEMORY

SIGKILL = 9
# As a shell or a container tells it.
KILLED_STATUSES = frozenset({-SIGKILL, 128 + SIGKILL})
SCARCE_SHARE = 0.05


@dataclass(frozen=True)
class Crash:
    """How a trainer ended that left no result."""

    exit_code: int | None = None
    signal: int | None = None
    memory: Mapping[str, int] = field(default_factory=dict)

    @property
    def was_killed(self) -> bool:
        return self.signal == SIGKILL or self.exit_code in KILLED_STATUSES

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed for want of memory: the kernel says so, or next to nothing was left."""
        if not self.was_killed:
            return False
        total, available = self.memory.get("total", 0), self.memory.get("available", 0)
        return self.memory.get("oom_kills", 0) > 0 or available < total * SCARCE_SHARE

    @property
    def code(self) -> tuple[str, str]:
        """(code, reason) of a job that fails for it."""
        if self.out_of_memory:
            return "RESOURCE_EXHAUSTED", "OUT_OF_MEMORY"
        return "INTERNAL", "TRAINER_CRASHED"

    def cause(self) -> str:
        if self.signal and not self.was_killed:
            return f"the trainer was ended by signal {self.signal}"
        if not self.was_killed:
            return f"the trainer ended with exit code {self.exit_code} and without a result"
        if not self.memory.get("total"):
            return f"the trainer was killed (signal 9), as happens when memory runs out; {LESS_MEMORY}"
        left = f"{gib(self.memory['available'])} of the node's {gib(self.memory['total'])} GiB were free"
        if self.out_of_memory:
            return f"the trainer was killed because the node ran out of memory ({left}); {LESS_MEMORY}"
        return f"the trainer was killed (signal 9), and not for want of memory: {left}"


def gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def crash_message(crash: Crash, log_lines: list[str]) -> str:
    """Why a trainer that left no result ended, with its last words."""
    cause = crash.cause()
    return "\n".join([f"{cause}. Its last log lines:", *log_lines]) if log_lines else cause
