"""What a check of a model's files found wrong: every problem with its file and field, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from controlplane.storage import ObjectInfo


class FileSource(Protocol):
    """The part of `ObjectStore` that checks need."""

    def head(self, key: str) -> ObjectInfo | None: ...

    def read_range(self, key: str, start: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class Problem:
    file: str
    field: str
    """A configuration key or a tensor's name; empty where the whole file is meant."""
    reason: str

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.field) if part)
        return f"{place}: {self.reason}" if place else self.reason

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class InvalidModel(Exception):
    """The files are no model that can be served. `problems` is never empty; the text is the first of them."""

    def __init__(self, problems: list[Problem]) -> None:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


class InvalidFile(Exception):
    """One file cannot be used; whoever knows its name turns this into a `Problem`."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class ProblemList:
    """Collects problems, so that an owner can mend them all at once; the first hundred are kept."""

    MOST = 100

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, file: str, field: str, reason: str) -> None:
        if len(self._problems) < self.MOST:
            self._problems.append(Problem(file, field, reason))

    def add_invalid(self, file: str, error: InvalidFile) -> None:
        self.add(file, error.field, error.reason)

    def __bool__(self) -> bool:
        return bool(self._problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._problems)

    @property
    def count(self) -> int:
        return len(self._problems)

    def raise_if_any(self) -> None:
        if self._problems:
            raise InvalidModel(list(self._problems))
