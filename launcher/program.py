"""What the supervisor runs: a command, when it counts as ready, and how it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")


class StartFailed(Exception):
    """Something cannot be started; the message is one line for the user."""


@dataclass(frozen=True)
class User:
    """Whom a command runs as instead of the supervisor's own user."""

    uid: int
    gid: int
    keep_search: bool = False
    """It may walk through folders that are closed to it."""


@dataclass(frozen=True)
class Program:
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: Path
    """Its working directory."""
    log: Path
    ready: Callable[[int], bool]
    """Whether the process with this pid serves; called again and again, in a thread. Raises StartFailed."""
    prepare: Callable[[], None] | None = None
    """Called before every start, in a thread of its own; raises StartFailed."""
    requires: tuple[str, ...] = ()
    """Names of the programs and steps that come first."""
    user: User | None = None
    sockets: tuple[int, ...] = ()
    """Descriptors that it inherits."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """What it gets when the supervisor is gone."""
    stop_seconds: float = 8.0
    is_service: bool = False
    """Stopped last, when nothing uses it any more."""
    runs_once: bool = False
    """It has done its work when it exits with 0."""


def child_argv(program: Program) -> list[str]:
    """The command line that becomes the program's command; see `child`."""
    return wrapped_argv(program.argv, program.user, program.death_signal)


def wrapped_argv(
    argv: tuple[str, ...], user: User | None, death_signal: signal.Signals = signal.SIGKILL
) -> list[str]:
    account = f"{user.uid}:{user.gid}" if user else "-"
    search = "1" if user and user.keep_search else "0"
    return [
        *(sys.executable, "-I", "-S", str(CHILD)),
        *(str(os.getpid()), str(int(death_signal)), account, search),
        *argv,
    ]


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Prepare and start a program, without keeping it running."""
    if program.prepare:
        program.prepare()
    with program.log.open("ab") as log:
        return subprocess.Popen(
            child_argv(program),
            cwd=program.directory,
            env=dict(program.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def plain_environment() -> dict[str, str]:
    """An environment without anything that a program could take for its settings."""
    kept = ("PATH", "HOME", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C.UTF-8"}


def last_words(log: Path, lines: int = 200) -> str:
    """The line of a log that says best why its program ended; empty when the log is."""
    try:
        tail = log.read_bytes()[-65536:].decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    found = [line.strip() for line in tail if line.strip()]
    for mark in ("FATAL", "PANIC", "Fatal", "panic:", "No space left", "ERROR", "Error"):
        for line in reversed(found):
            if mark in line:
                return line
    return found[-1] if found else ""
