"""Long processes of a node: started detached, observed by what they leave in their directory.

A directory is one lifetime of one process. Nothing is kept in memory, so any worker can observe and stop what
another one started, and a worker's end does not touch it. See `process_shim` for the other half.

    command.json  what to run (argv, env, cwd)       lock      held as long as anything of it is alive
    log.txt       the last of its output             stop.json that it is to stop, and how long it may take
    log.1.txt     the output before that             exit.json how it ended
    log.starts.json where in the whole output those begin, once there are two
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

SHIM = Path(__file__).with_name("process_shim.py")
TAIL_BYTES = 256 * 1024
EXIT_RECORD = "exit.json"
SUPERVISOR_LOCK_VARIABLE = "HEARTH_SUPERVISOR_LOCK"
# struct flock of 64-bit Linux: type, whence, start, length, pid.
FLOCK = "hhqqi0q"


class ProcessState(StrEnum):
    ABSENT = "ABSENT"
    """Never started here."""
    RUNNING = "RUNNING"
    EXITED = "EXITED"
    """It ended, nothing of it is left, and how it ended is known."""
    LOST = "LOST"
    """It is gone and nobody saw how: the machine or its shim died."""


@dataclass(frozen=True)
class ProcessObservation:
    state: ProcessState
    exit_code: int | None = None
    """None when a signal ended it, or when it was stopped before it began."""
    signal: int | None = None
    stopped: bool = False
    """It ended because it was asked to."""
    memory: dict[str, int] = field(default_factory=dict)
    """`total` and `available` bytes shortly before it ended, and `oom_kills` of the kernel while it ran."""


class ProcessOver(Exception):
    """The directory belongs to a process that has ended or was told to stop; take another directory."""


def start_process(
    directory: Path, argv: Sequence[str], env: Mapping[str, str], secrets: Iterable[str] = ()
) -> None:
    """Start `argv` with exactly `env`, in `directory`; nothing happens where it runs already.

    The variables named in `secrets` are written to no file.

    Of several callers at once one starts it. Raises ProcessOver when the directory had its process, and
    OSError when it cannot be started.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _open_lock(directory) as lock_fd:
        # A shim that has written how it ended may hold the lock for another moment.
        if not (directory / "exit.json").exists() and not _take_lock(lock_fd):
            return
        for mark in ("exit.json", "stop.json", "command.json"):
            if (directory / mark).exists():
                raise ProcessOver(f"{directory} already has {mark}")
        told = {name: env[name] for name in secrets}
        _write_command(directory, argv, {name: value for name, value in env.items() if name not in told})
        try:
            _start_shim(directory, lock_fd, told)
        except BaseException:
            (directory / "command.json").unlink(missing_ok=True)
            raise


def observe_process(directory: Path) -> ProcessObservation:
    if exited := _read_exit(directory):
        return exited
    if _is_locked(directory):
        return ProcessObservation(ProcessState.RUNNING)
    # It may have ended between the two looks.
    if exited := _read_exit(directory):
        return exited
    if (directory / "command.json").exists():
        return ProcessObservation(ProcessState.LOST)
    return ProcessObservation(ProcessState.ABSENT)


def stop_process(directory: Path, grace_seconds: float) -> None:
    """Ask for SIGTERM now and SIGKILL after the grace; does not wait.

    A process not yet started will not start here any more. A later call may shorten the grace.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = observe_process(directory).state
    if state is ProcessState.EXITED:
        return
    try:
        write_json(directory / "stop.json", {"grace_seconds": grace_seconds})
    except OSError:
        # A full disk must not keep anything running: the shim takes a signal as well, with its own grace.
        if state is not ProcessState.RUNNING or (session := _session(directory)) is None:
            raise
        os.killpg(session, signal.SIGTERM)
    if state is ProcessState.LOST:
        _end_leftovers(directory)


def remove_process(directory: Path) -> bool:
    """Remove the directory of a process that is gone; False, and nothing done, while it runs."""
    if _is_locked(directory):
        return False
    _end_leftovers(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def log_tail(directory: Path, lines: int = 40) -> str:
    """The last lines of output, as text."""
    text = b"".join(_tail_bytes(directory / name) for name in ("log.1.txt", "log.txt"))
    return "\n".join(text[-TAIL_BYTES:].decode(errors="replace").splitlines()[-lines:])


def read_log(directory: Path, start: int, length: int) -> tuple[int, bytes]:
    """(where it begins, at most `length` bytes) of the output from its byte `start` on.

    It begins later than asked for where that is kept no more.
    """
    with ExitStack() as opened:
        # The newer one first: a file that moves in between is then found twice, and not missed.
        found = [_opened(directory / name) for name in ("log.txt", "log.1.txt")]
        files = [opened.enter_context(file) for file in found if file is not None]
        kept = sorted(_starts(directory, files).items())
        first = max(start, kept[0][0]) if kept else start
        data = bytearray()
        for begins, file in kept:
            file.seek(max(0, first + len(data) - begins))
            data += file.read(length - len(data))
    return first, bytes(data)


def _opened(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _starts(directory: Path, files: Sequence[BinaryIO]) -> dict[int, BinaryIO]:
    """Each file by where it begins; one that has moved out of sight meanwhile is left out."""
    try:
        known = json.loads((directory / "log.starts.json").read_text())
    except FileNotFoundError:
        return {0: files[0]} if files else {}
    by_inode = {str(os.fstat(file.fileno()).st_ino): file for file in files}
    return {known[inode]: file for inode, file in by_inode.items() if inode in known}


def read_environment(directory: Path) -> dict[str, str]:
    """The environment that the process of this directory was started with; empty when there is none."""
    try:
        command = json.loads((directory / "command.json").read_text())
    except (OSError, ValueError):
        return {}
    return dict(command["env"])


def _write_command(directory: Path, argv: Sequence[str], env: Mapping[str, str]) -> None:
    supervisor_lock = env.get(SUPERVISOR_LOCK_VARIABLE) or os.environ.get(SUPERVISOR_LOCK_VARIABLE, "")
    command = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(directory),
        "supervisor_lock": supervisor_lock,
    }
    write_json(directory / "command.json", command)


def _start_shim(directory: Path, lock_fd: int, secrets: Mapping[str, str]) -> None:
    # Isolated and without site packages: fast, and nothing in its surroundings can break it.
    argv = [sys.executable, "-I", "-S", str(SHIM), str(directory), str(lock_fd)]
    with open(directory / "shim.txt", "ab") as errors:
        started = subprocess.run(
            argv,
            input=json.dumps(dict(secrets)).encode(),
            stdout=errors,
            stderr=errors,
            cwd="/",
            # Its starter's environment holds secrets that it has no use for.
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            pass_fds=[lock_fd],
            start_new_session=True,
            check=False,
        )
    if started.returncode != 0:
        detail = (directory / "shim.txt").read_text(errors="replace").strip().splitlines()[-1:]
        raise OSError(f"the process shim of {directory} did not start: {''.join(detail)}")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Whole or not at all, and readable by this user only: environments hold secrets."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            json.dump(dict(document), file)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read_exit(directory: Path) -> ProcessObservation | None:
    try:
        record = json.loads((directory / "exit.json").read_text())
    except FileNotFoundError:
        return None
    return ProcessObservation(
        ProcessState.EXITED,
        record["exit_code"],
        record["signal"],
        bool(record["stopped"]),
        record.get("memory") or {},
    )


@contextmanager
def _open_lock(directory: Path) -> Iterator[int]:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _take_lock(fd: int) -> bool:
    """Lock the open file description: it stays locked as long as any process that inherits it lives."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_locked(directory: Path) -> bool:
    """Ask without taking it, as flock would: a look must not keep a starter from starting."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    finally:
        os.close(fd)
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


def _end_leftovers(directory: Path) -> None:
    """Kill what outlived both processes of the shim: of its session, and still in its directory."""
    session = _session(directory)
    if session is None:
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _belongs(int(entry.name), session, directory.absolute()):
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _session(directory: Path) -> int | None:
    try:
        return int((directory / "session").read_text())
    except (OSError, ValueError):
        return None


def _belongs(pid: int, session: int, directory: Path) -> bool:
    try:
        return os.getsid(pid) == session and Path(f"/proc/{pid}/cwd").readlink() == directory.resolve()
    except OSError:
        return False


def _tail_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
