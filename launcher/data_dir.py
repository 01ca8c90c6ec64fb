"""The data directory: everything that one `hearth up` owns, and the lock that says who runs on it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.files import write_private
from launcher.program import StartFailed

MINIMUM_FREE_MEBIBYTES = 512
# Who only looks whether the lock is held has it shared for a moment.
GLANCE_SECONDS = 0.5


@dataclass(frozen=True)
class DataDir:
    path: Path

    @classmethod
    def at(cls, path: Path) -> DataDir:
        return cls(path.expanduser().absolute())

    @property
    def lock_file(self) -> Path:
        return self.path / "hearth.lock"

    @property
    def env_file(self) -> Path:
        return self.path / "env"

    @property
    def secret_keys_file(self) -> Path:
        return self.path / "secret-keys"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics-targets.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    def make(self) -> None:
        """Make the folders; raises StartFailed when they cannot be written, or the disk is full."""
        try:
            # Others may pass through, which root's PostgreSQL has to, but not look around.
            self.path.mkdir(parents=True, mode=0o711, exist_ok=True)
            for folder in (self.logs, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
            write_private(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise StartFailed(f"cannot write to {self.path}: {error.strerror}") from None
        free = shutil.disk_usage(self.path).free // (1024 * 1024)
        if free < MINIMUM_FREE_MEBIBYTES:
            raise StartFailed(
                f"the disk of {self.path} has {free} MiB left and {MINIMUM_FREE_MEBIBYTES} MiB are needed"
            )

    def take_lock(self) -> int:
        """Own the directory for as long as this process lives; the descriptor must stay open."""
        fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + GLANCE_SECONDS
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                os.close(fd)
                pid = self._recorded_pid()
                raise StartFailed(f"another hearth runs on {self.path} (pid {pid}); stop it first")
            time.sleep(0.02)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def owner(self) -> int | None:
        """The pid of the `hearth up` that runs on this directory."""
        return self._recorded_pid() if self.lock_file.exists() and is_locked(self.lock_file) else None

    def read_env(self) -> dict[str, str]:
        """What `env` exports; empty before the first start."""
        try:
            text = self.env_file.read_text()
        except FileNotFoundError:
            return {}
        words = (word for word in shlex.split(text, comments=True) if "=" in word)
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def write_env(self, values: Mapping[str, str]) -> None:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
        write_private(self.env_file, "".join(lines))

    def secret_keys(self) -> str:
        """The keys that stored secrets are encrypted with, as the setting takes them; made when missing."""
        try:
            return self.secret_keys_file.read_text().strip()
        except FileNotFoundError:
            key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            write_private(self.secret_keys_file, f"{key}\n")
            return key

    def read_status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.status_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def write_status(self, status: Mapping[str, Any]) -> None:
        write_private(self.status_file, json.dumps(status, indent=2) + "\n")

    def write_metrics_targets(self, ports: Mapping[str, int]) -> None:
        """Where each part shows its numbers, as Prometheus' `file_sd_configs` reads it."""
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"part": part}} for part, port in ports.items()
        ]
        write_private(self.metrics_file, json.dumps(targets, indent=2) + "\n")

    def _recorded_pid(self) -> int:
        try:
            return int(self.lock_file.read_text())
        except (OSError, ValueError):
            return 0


def is_locked(path: Path) -> bool:
    """Whether somebody holds the file's flock."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
