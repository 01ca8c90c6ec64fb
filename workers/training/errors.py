"""Why a job failed: any exception becomes a code, a reason and one sentence that names the root cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.storage import ObjectNotFound
from workers.runtimes.node_cache import NO_ROOM, StagingError

EXIT_INTERRUPTED = 143
EXIT_OUTAGE = 75
"""The object store could not be reached, for longer than the trainer waits for it."""
TO_BE_STARTED_AGAIN = frozenset({EXIT_INTERRUPTED, EXIT_OUTAGE})
"""Exit statuses that say nothing against the job."""
SENTENCE_LIMIT = 500
LESS_MEMORY = "a lower cut-off length (maxContextLength) or, in fineTuningJobs, microBatchSize needs less"

OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|not enough memory|can(?:'t|not) allocate memory|bad_alloc|cublas_status_alloc"
    r"|memoryerror|memory allocation of \d+ bytes failed",
    re.IGNORECASE,
)
# torch and safetensors write files themselves, and say so in words only.
DISK_FULL = re.compile(
    r"no space left on device|disk quota exceeded|file too large|inline_container.*unexpected pos",
    re.IGNORECASE,
)
TARGETS_MISSING = re.compile(r"target modules .* not found in the base model", re.IGNORECASE | re.DOTALL)


class TrainingFailure(Exception):
    """The job cannot succeed as it is. `code` is a google.rpc name; the message is for the job's owner."""

    def __init__(self, code: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


class RowFailure(TrainingFailure):
    """A row that cannot be used; the message starts with its place."""

    def __init__(self, place: str, reason: str, why: str) -> None:
        super().__init__("INVALID_ARGUMENT", reason, f"{place}: {why}")
        self.place = place


class Interrupted(SystemExit):
    """The trainer was asked to stop; the job goes on from its last checkpoint some other time."""

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


@dataclass(frozen=True)
class Failure:
    code: str
    reason: str
    message: str


def describe_failure(error: BaseException) -> Failure:
    """The failure that an exception stands for; what is not known is INTERNAL, with its own first line."""
    if isinstance(error, TrainingFailure | StagingError):
        return Failure(error.code, error.reason, error.message)
    if isinstance(error, ObjectNotFound):
        return Failure("FAILED_PRECONDITION", "FILE_MISSING", f"{error.key} is missing from the object store")
    if short := _first(error, lambda cause: _says(cause, OUT_OF_MEMORY)):
        return Failure(
            "RESOURCE_EXHAUSTED",
            "OUT_OF_MEMORY",
            f"training ran out of memory; {LESS_MEMORY}: {one_sentence(short)}",
        )
    if full := _first(error, _is_full_disk):
        return Failure(
            "RESOURCE_EXHAUSTED",
            "DISK_FULL",
            "the disk of the node is full; resumed when there is room again, the job goes on from its last "
            f"checkpoint: {one_sentence(full)}",
        )
    if isinstance(error, ValueError) and _says(error, TARGETS_MISSING):
        return Failure("INVALID_ARGUMENT", "LORA_TARGET_MODULES", one_sentence(error))
    return Failure("INTERNAL", "TRAINER_ERROR", f"{type(error).__name__}: {one_sentence(error)}")


def one_sentence(error: BaseException) -> str:
    """The first line of what an exception says, at most 500 characters."""
    line = next(iter(str(error).strip().splitlines()), "") or "it gives no reason"
    return line if len(line) <= SENTENCE_LIMIT else line[: SENTENCE_LIMIT - 1] + "…"


def _first(error: BaseException, holds: Callable[[BaseException], bool]) -> BaseException | None:
    """The first that holds of an error and what it came of: libraries wrap what they are told."""
    found: BaseException | None = error
    while found is not None and not holds(found):
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return found


def _is_full_disk(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in NO_ROOM) or _says(error, DISK_FULL)


def _says(error: BaseException, pattern: re.Pattern[str]) -> bool:
    return pattern.search(f"{type(error).__name__}: {error}") is not None
