"""The small parent of every long process: it outlives workers, keeps the log, and tells how things ended.

    python -I -S process_shim.py DIRECTORY LOCK_FD < SECRETS

SECRETS are variables for the command that are to be in no file, as JSON.
It needs nothing but the standard library. Two processes, so that no single SIGKILL leaves anything running:

    guard    adopts whatever loses its parent; when the monitor is gone it ends all that is left
    monitor  starts the command, keeps log.txt, obeys stop.json, and writes exit.json at the end

Both hold the lock of DIRECTORY/lock, which they inherit from `process.start_process`; the command does not.
So a free lock means that nothing of the process is left, and exit.json means the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import runpy
import select
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Isolated, it finds nothing of ours but what stands beside it.
memory_now = runpy.run_path(str(Path(__file__).with_name("node_memory.py")))["memory_now"]

LOG_BYTES = 2 * 1024 * 1024
"""Of each of the two log files."""
POLL_SECONDS = 0.2
SUPERVISOR_POLL_SECONDS = 1.0
MEMORY_POLL_SECONDS = 0.5
DEFAULT_GRACE_SECONDS = 10.0
RESERVED_BYTES = 4096
READ_BYTES = 65536
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    directory, lock_fd = Path(sys.argv[1]), int(sys.argv[2])
    secrets = read_secrets()
    os.set_inheritable(lock_fd, False)
    with contextlib.suppress(OSError):
        (directory / "session").write_text(str(os.getsid(0)))
    if os.fork():
        os._exit(0)  # The starter waits for this one only; the guard belongs to init.
    guard(directory, secrets)


def read_secrets() -> dict[str, str]:
    """What the starter says; there is nothing to read for anybody after that."""
    secrets: dict[str, str] = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return secrets


def guard(directory: Path, secrets: dict[str, str]) -> None:
    """Wait for the monitor, then end whatever it left behind."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    monitor_pid = os.fork()
    if monitor_pid == 0:
        Monitor(directory, secrets).run()
        sys.exit(0)
    signal.signal(signal.SIGTERM, lambda *_: _signal(monitor_pid, signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: _signal(monitor_pid, signal.SIGTERM))
    while monitor_pid not in _wait_any():
        pass
    end_children()
    os._exit(0)


class Monitor:
    def __init__(self, directory: Path, secrets: dict[str, str]) -> None:
        self.directory = directory
        self.log = BoundedLog(directory)
        command = json.loads((directory / "command.json").read_text())
        self.argv: list[str] = command["argv"]
        self.env: dict[str, str] = {**command["env"], **secrets}
        self.cwd: str = command["cwd"]
        self.supervisor_lock: str = command.get("supervisor_lock") or ""
        self.next_supervisor_look = 0.0
        self.next_memory_look = 0.0
        self.memory: dict[str, int] = {}
        self.kills_before = 0
        self.pid = 0
        self.stopped = False
        self.terminated = False
        self.kill_at: float | None = None

    def run(self) -> None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGTERM, lambda *_: self.stop(DEFAULT_GRACE_SECONDS))
        signal.signal(signal.SIGINT, lambda *_: self.stop(DEFAULT_GRACE_SECONDS))
        reserve_exit_record(self.directory)
        self.look_for_stop()
        if self.stopped:
            write_exit_record(self.directory, None, None, True)
            return
        self.kills_before = memory_now()["oom_kills"]
        output = self.start_command()
        self.watch(output)
        exit_code, ended_by = _outcome(self.reap())
        drain(output, self.log)
        write_exit_record(self.directory, exit_code, ended_by, self.stopped, self.last_memory())

    def start_command(self) -> int:
        """Fork and exec the command; returns the end of the pipe that its output comes from."""
        reading, writing = os.pipe()
        monitor_pid = os.getpid()
        # A SIGTERM of these moments waits: neither lost in the fork nor taken by the wrong one of the two.
        usual = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self.pid = os.fork()
        if self.pid == 0:
            self.become_command(writing, monitor_pid, usual)
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        os.close(writing)
        os.set_blocking(reading, False)
        if self.stopped:
            self.terminate()
        return reading

    def become_command(self, writing: int, monitor_pid: int, usual: set[int | signal.Signals]) -> None:
        try:
            os.setpgid(0, 0)
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != monitor_pid:
                os._exit(1)
            for number in (*STOP_SIGNALS, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, usual)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.chdir(self.cwd)
            os.execvpe(self.argv[0], self.argv, self.env)
        except OSError as error:
            os.write(2, f"cannot start {self.argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def watch(self, output: int) -> None:
        """Until the command itself has ended: keep its log, and stop it when that is asked for."""
        open_output = True
        while not _has_ended(self.pid):
            ready = select.select([output] if open_output else [], [], [], POLL_SECONDS)[0]
            if ready:
                open_output = copy_chunk(output, self.log)
            self.look_for_stop()
            self.look_for_supervisor()
            self.look_at_memory()
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                _signal_group(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """End the command's descendants, then collect its status.

        The group is signalled while the command is a zombie: until it is reaped, its number stays its own.
        """
        _signal_group(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        end_children()
        return status

    def stop(self, grace_seconds: float) -> None:
        """End the command, within `grace_seconds` at most; of several requests the earliest end counts."""
        self.stopped = True
        deadline = time.monotonic() + grace_seconds
        if self.kill_at is None or deadline < self.kill_at:
            self.kill_at = deadline
        if self.pid:
            self.terminate()

    def terminate(self) -> None:
        """SIGTERM, once, and to the command alone: it ends its own children in the order that suits it."""
        if not self.terminated:
            self.terminated = True
            _signal(self.pid, signal.SIGTERM)

    def look_for_stop(self) -> None:
        """Obey stop.json: {"grace_seconds": float}. A later request replaces it and may shorten the grace."""
        try:
            asked = json.loads((self.directory / "stop.json").read_text())
        except (OSError, ValueError):
            return
        self.stop(float(asked["grace_seconds"]))

    def look_for_supervisor(self) -> None:
        now = time.monotonic()
        if self.supervisor_lock and not self.stopped and now >= self.next_supervisor_look:
            self.next_supervisor_look = now + SUPERVISOR_POLL_SECONDS
            if _is_unlocked(self.supervisor_lock):
                self.stop(DEFAULT_GRACE_SECONDS)

    def look_at_memory(self) -> None:
        """Once it has ended its memory is free again: what it was before is worth knowing."""
        now = time.monotonic()
        if now >= self.next_memory_look:
            self.next_memory_look = now + MEMORY_POLL_SECONDS
            self.memory = dict(memory_now())

    def last_memory(self) -> dict[str, int]:
        kills = memory_now()["oom_kills"] - self.kills_before
        return {**self.memory, "oom_kills": kills}


class BoundedLog:
    """The last few mebibytes of output, in two files. What cannot be written is dropped: nothing blocks.

    log.starts.json says where in the whole output each file begins, by inode: names move, and a reader may
    come at any moment.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log.txt"
        self.older = directory / "log.1.txt"
        self.newer = directory / "log.0.txt"
        self.starts = directory / "log.starts.json"
        self.start = 0
        self.size = 0
        self.fd: int | None = None

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self.fd is None:
                self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self.size = os.fstat(self.fd).st_size
            if self.size + len(data) > LOG_BYTES:
                self.turn_over()
            self.size += os.write(self.fd, data)

    def turn_over(self) -> None:
        """Begin a new file; when none can be made, the old one stays as it is."""
        fresh = os.open(self.newer, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.tell_starts(fresh)
        self.path.replace(self.older)
        self.newer.replace(self.path)
        if self.fd is not None:
            os.close(self.fd)
        self.start += self.size
        self.fd, self.size = fresh, 0

    def tell_starts(self, fresh: int) -> None:
        """Written before the names move, so that whoever finds the new file finds its beginning too."""
        starts = {os.fstat(fresh).st_ino: self.start + self.size}
        if self.fd is not None:
            starts[os.fstat(self.fd).st_ino] = self.start
        draft = self.starts.with_suffix(".tmp")
        draft.write_text(json.dumps(starts))
        draft.replace(self.starts)


def copy_chunk(output: int, log: BoundedLog) -> bool:
    """Copy what is there; False at the end of the output."""
    try:
        data = os.read(output, READ_BYTES)
    except BlockingIOError:
        return True
    log.write(data)
    return bool(data)


def drain(output: int, log: BoundedLog) -> None:
    """Copy what the command wrote before it ended; never waits for more."""
    while select.select([output], [], [], 0)[0]:
        if not copy_chunk(output, log):
            return


def reserve_exit_record(directory: Path) -> None:
    """Take the space of exit.json now, so that a full disk cannot keep us from writing it."""
    with contextlib.suppress(OSError), open(directory / "exit.tmp", "wb") as file:
        file.write(b" " * RESERVED_BYTES)
        os.fsync(file.fileno())


def write_exit_record(
    directory: Path,
    exit_code: int | None,
    ended_by: int | None,
    stopped: bool,
    memory: dict[str, int] | None = None,
) -> None:
    record: dict[str, Any] = {
        "exit_code": exit_code,
        "signal": ended_by,
        "stopped": stopped,
        "memory": memory or {},
        "ended_at": datetime.now(UTC).isoformat(),
    }
    data = json.dumps(record).encode().ljust(RESERVED_BYTES)
    try:
        _replace_exit_record(directory, data)
    except OSError:
        with contextlib.suppress(OSError):  # The log is worth less than how it ended.
            (directory / "log.1.txt").unlink()
        _replace_exit_record(directory, data)


def _replace_exit_record(directory: Path, data: bytes) -> None:
    reserved = directory / "exit.tmp"
    fd = os.open(reserved, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    reserved.replace(directory / "exit.json")


def end_children() -> None:
    """SIGKILL every child, and every orphan that its end makes a child of ours, until none is left."""
    while True:
        for pid in _children():
            _signal(pid, signal.SIGKILL)
        if not _wait_any():
            return


def _children() -> list[int]:
    own = os.getpid()
    return [pid for pid in _all_processes() if _parent(pid) == own]


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        # The second field is the name in parentheses, and may hold anything, parentheses too.
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _wait_any() -> list[int]:
    """Wait until a child ends; its pid, or nothing when there is no child."""
    try:
        return [os.waitpid(-1, 0)[0]]
    except ChildProcessError:
        return []


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _outcome(status: int) -> tuple[int | None, int | None]:
    """(exit code, None) or (None, signal)."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pgid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


def _is_unlocked(path: str) -> bool:
    """Whether nobody holds the file's flock any more; a file that is gone counts as unlocked."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
