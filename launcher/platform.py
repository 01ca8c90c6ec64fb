"""All programs of one platform, with the settings that tie them together."""

from __future__ import annotations

import http.client
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.addresses import Address
from launcher.data_dir import DataDir
from launcher.embedded import Services
from launcher.parts import (
    LAST_REQUESTS_SECONDS,
    api_argv,
    beat_argv,
    gateway_on_socket_argv,
    worker_argv,
)
from launcher.ports import free_port
from launcher.program import Program, StartFailed

ANSWER_SECONDS = 2.0
WATCHED = ("api", "gateway", "worker", "beat")


@dataclass(frozen=True)
class Platform:
    data_dir: DataDir
    address: Address
    services: Services
    api_port: int
    listener: socket.socket
    """The gateway's, open for as long as the platform runs."""

    def environment(self) -> dict[str, str]:
        """The settings of every part, over those that the user gave."""
        return {
            # What clients elsewhere use may be a name that only the user knows.
            "HEARTH_S3_PUBLIC_ENDPOINT": self.public_endpoint(),
            **os.environ,
            **self.services.environment(),
            "HEARTH_SECRET_KEYS": self.data_dir.secret_keys(),
            "HEARTH_DATA_DIR": str(self.data_dir.path),
            "HEARTH_API_HOST": "127.0.0.1",
            "HEARTH_API_PORT": str(self.api_port),
            "HEARTH_API_URL": f"http://127.0.0.1:{self.api_port}",
            "HEARTH_GATEWAY_HOST": self.address.host,
            "HEARTH_GATEWAY_PORT": str(self.address.port),
            "HEARTH_DRAIN_SECONDS": str(LAST_REQUESTS_SECONDS),
            "HEARTH_SUPERVISOR_LOCK": str(self.data_dir.lock_file),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
        }

    def public_endpoint(self) -> str:
        """Where clients reach the object store: signed URLs are made for it."""
        if self.address.is_local:
            return self.services.seaweedfs.endpoint
        return self.address.at_port(self.services.seaweedfs.ports["public"])

    def programs(self, environment: Mapping[str, str]) -> list[Program]:
        """Services, setup and parts, in the order of their starting where one waits for another.

        Most of a start is the loading of modules, so what needs no database for it does not wait for one.
        Settings that are wrong end the process here, with a line for each and status 2.
        """
        from controlplane.config import load_settings

        os.environ.update(environment)
        settings = load_settings()
        fd = self.listener.fileno()
        setup = (sys.executable, "-m", "launcher.setup", str(self.data_dir.path), self.address.url)

        ports = self.metrics_ports()
        self.data_dir.write_metrics_targets(ports)

        def part(name: str, argv: tuple[str, ...], ready: Callable[[int], bool], *requires: str) -> Program:
            return self._program(name, argv, {**environment, **_watched_at(ports.get(name))}, ready, requires)

        return [
            *self.services.programs(self.data_dir.logs),
            part("setup", setup, lambda pid: False, "postgres", "seaweedfs"),
            part("api", api_argv(settings), lambda pid: self.api_answers("/healthz")),
            part("worker", worker_argv(), lambda pid: self.worker_takes_tasks(), "valkey"),
            replace(
                part("gateway", gateway_on_socket_argv(fd), lambda pid: self.gateway_answers(), "setup"),
                sockets=(fd,),
            ),
            part("beat", beat_argv(), lambda pid: True, "setup", "worker"),
        ]

    def metrics_ports(self) -> dict[str, int]:
        """Where the parts show their numbers, on this machine alone."""
        services = self.services
        taken = {self.api_port, services.postgres.port, services.valkey.port}
        taken |= set(services.seaweedfs.ports.values())
        ports: dict[str, int] = {}
        for part in WATCHED:
            ports[part] = free_port({*taken, *ports.values()})
        return ports

    def api_answers(self, path: str) -> bool:
        return _get("127.0.0.1", self.api_port, path, {}) == 200

    def worker_takes_tasks(self) -> bool:
        """A worker that takes tasks waits for them in a blocking pop."""
        return b"cmd=brpop" in self.services.valkey.ask("CLIENT LIST")

    def gateway_answers(self) -> bool:
        """Whether the control plane takes the key of `env` through the gateway: all of that way works."""
        host, port = self.address.probe_host, self.address.port
        if _get(host, port, "/readyz", {}) != 200 or not self.api_answers("/readyz"):
            return False
        headers = {"Authorization": f"Bearer {self.data_dir.read_env().get('FIREWORKS_API_KEY', '')}"}
        status = _get(host, port, "/verifyApiKey", headers)
        if status == 401:
            env_file = self.data_dir.env_file
            raise StartFailed(f"the key in {env_file} is not valid; remove that file to get a new one")
        return status == 200

    def _program(
        self,
        name: str,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        ready: Callable[[int], bool],
        requires: tuple[str, ...],
    ) -> Program:
        return Program(
            name=name,
            argv=argv,
            env=environment,
            directory=self.data_dir.path,
            log=self.data_dir.logs / f"{name}.log",
            ready=ready,
            requires=requires,
            runs_once=name == "setup",
        )


def _watched_at(port: int | None) -> dict[str, str]:
    return {"HEARTH_METRICS_HOST": "127.0.0.1", "HEARTH_METRICS_PORT": str(port)} if port else {}


def _get(host: str, port: int, path: str, headers: Mapping[str, str]) -> int:
    """The status of a GET; 0 when nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
