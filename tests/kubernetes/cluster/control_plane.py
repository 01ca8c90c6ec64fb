"""A real control plane on loopback: etcd, the API server, the controllers and the scheduler as processes.

python -m tests.kubernetes.cluster.control_plane     # builds what it needs, where that is not there yet
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from launcher.program import wrapped_argv
from tests.kubernetes.cluster.certificates import write_certificates

VERSION = "1.20.2"
BUILD = Path(__file__).with_name("build.sh")
START_SECONDS = 90.0
STOP_SECONDS = 20.0
MEMORY = Path("/dev/shm")
PREFIX, LOCK = "hearth-cluster-", "lock"

# Dead nodes are noticed within seconds, so that tests need not wait.
IMPATIENT = {
    "node-monitor-period": "1s",
    "node-monitor-grace-period": "6s",
    "terminated-pod-gc-threshold": "50",
}


def cache_folder() -> Path:
    """Where the binaries lie, outside the work tree."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "hearth" / f"kubernetes-{VERSION}"


def build() -> Path:
    """The folder with the binaries; built when they are not there yet. What is missing for that is said."""
    if subprocess.run([str(BUILD), str(cache_folder())]).returncode:
        raise SystemExit(1)
    return cache_folder() / "bin"


@dataclass
class ControlPlane:
    """Runs until `stop`. `kubeconfig` lets in whoever has it, with all rights."""

    folder: Path
    binaries: Path
    more: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More flags, by program."""
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    etcd_port: int = 0

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def start(self) -> None:
        write_certificates(self.folder)
        (self.folder / "tokens.csv").touch(mode=0o600)
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        self.port, self.etcd_port, peer_port = free_ports(3)
        write_kubeconfig(self.kubeconfig, self.folder / "ca.crt", self.port, self.token)
        self._spawn("etcd", self._etcd(peer_port))
        self.start_api()
        self._spawn("kube-controller-manager", self._controllers())
        scheduler = {"kubeconfig": str(self.kubeconfig), "leader-elect": "false", "port": "0"}
        self._spawn("kube-scheduler", flags({**scheduler, "secure-port": "0"}))

    def start_api(self) -> None:
        self._spawn("kube-apiserver", self._api())
        self.wait_until_ready()

    def stop_api(self) -> None:
        """The API server is away, as for an upgrade; etcd keeps everything."""
        stop(self.running.pop("kube-apiserver"))

    def stop(self) -> None:
        for name in reversed(list(self.running)):
            stop(self.running.pop(name))

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        asked = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": f"Bearer {self.token}"}
        )
        while True:
            with suppress(OSError), urllib.request.urlopen(asked, context=context, timeout=2):
                return
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {self.last_words(name)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API server is not ready: {self.last_words('kube-apiserver')}")
            time.sleep(0.1)

    def last_words(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def _spawn(self, name: str, arguments: list[str]) -> None:
        arguments = [*arguments, *flags(self.more.get(name, {}))]
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                wrapped_argv((str(self.binaries / name), *arguments), None),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _etcd(self, peer_port: int) -> list[str]:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peer_port}"
        options = {
            "data-dir": str(self.folder / "etcd"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "warn",
        }
        return [*flags(options), "--unsafe-no-fsync"]

    def _api(self) -> list[str]:
        options = {
            "etcd-servers": f"http://127.0.0.1:{self.etcd_port}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "secure-port": str(self.port),
            "service-cluster-ip-range": "127.96.0.0/24",
            "tls-cert-file": "server.crt",
            "tls-private-key-file": "server.key",
            "client-ca-file": "ca.crt",
            "token-auth-file": "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": "accounts.pub",
            "service-account-signing-key-file": "accounts.key",
            "event-ttl": "10m",
        }
        return flags(options)

    def _controllers(self) -> list[str]:
        options = {
            "kubeconfig": str(self.kubeconfig),
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": "accounts.key",
            "root-ca-file": "ca.crt",
            "port": "0",
            "secure-port": "0",
        }
        return flags({**options, **IMPATIENT})


def flags(options: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def control_plane(
    binaries: Path, more: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[ControlPlane]:
    """A control plane of its own, which is gone with all its data afterwards. `more` are flags, by name."""
    where = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    remove_leftovers(where)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
    plane = ControlPlane(folder, binaries, more or {})
    with held(folder / LOCK):
        try:
            plane.start()
            yield plane
        finally:
            plane.stop()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Whether nobody else has it: whoever had it and was killed has it no more."""
    with open(lock, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def remove_leftovers(where: Path) -> None:
    """Of control planes whose tests were killed: they lie in memory."""
    for lock in where.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), held(lock) as ours:
            if ours:
                shutil.rmtree(lock.parent, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_kubeconfig(file: Path, authority: Path, port: int, token: str) -> None:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps(document))


if __name__ == "__main__":
    build()
