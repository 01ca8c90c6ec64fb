"""The three services of one data directory, with the ports and passwords that it remembers."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.files import write_private
from launcher.ports import free_port, is_free
from launcher.program import Program, StartFailed
from launcher.services.postgres import Postgres
from launcher.services.seaweedfs import SeaweedFS, choose_ports
from launcher.services.valkey import Valkey


@dataclass(frozen=True)
class Services:
    postgres: Postgres
    valkey: Valkey
    seaweedfs: SeaweedFS

    @classmethod
    def of(cls, data_dir: Path) -> Services:
        """What services.json says; a port that is taken by now, and what is missing, is chosen anew."""
        data_dir = data_dir.absolute()
        record = data_dir / "services.json"
        known = _read(record)
        store = known.get("seaweedfs", {})
        services = cls(
            Postgres(data_dir / "postgres", *_port_and_password(known.get("postgres", {}))),
            Valkey(data_dir / "valkey", *_port_and_password(known.get("valkey", {}))),
            SeaweedFS(
                data_dir / "seaweedfs",
                choose_ports(store.get("ports", {})),
                store.get("access_key") or secrets.token_hex(10),
                store.get("secret_key") or secrets.token_urlsafe(30),
            ),
        )
        write_private(record, json.dumps(services._as_record(), indent=2) + "\n")
        return services

    def programs(self, logs: Path) -> list[Program]:
        return [
            self.seaweedfs.program(logs / "seaweedfs.log"),
            self.valkey.program(logs / "valkey.log"),
            self.postgres.program(logs / "postgres.log"),
        ]

    def environment(self) -> dict[str, str]:
        """The settings that point the parts of Hearth at these services."""
        return {
            "HEARTH_DATABASE_URL": self.postgres.url,
            "HEARTH_REDIS_URL": self.valkey.url,
            "HEARTH_S3_ENDPOINT": self.seaweedfs.endpoint,
            "HEARTH_S3_ACCESS_KEY": self.seaweedfs.access_key,
            "HEARTH_S3_SECRET_KEY": self.seaweedfs.secret_key,
            "HEARTH_S3_REGION": "us-east-1",
        }

    def _as_record(self) -> dict[str, Any]:
        return {
            "postgres": {"port": self.postgres.port, "password": self.postgres.password},
            "valkey": {"port": self.valkey.port, "password": self.valkey.password},
            "seaweedfs": {
                "ports": self.seaweedfs.ports,
                "access_key": self.seaweedfs.access_key,
                "secret_key": self.seaweedfs.secret_key,
            },
        }


def _port_and_password(known: dict[str, Any]) -> tuple[int, str]:
    port = known.get("port")
    if not isinstance(port, int) or not is_free(port):
        port = free_port()
    return port, known.get("password") or secrets.token_urlsafe(24)


def _read(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StartFailed(f"{record} is damaged; it holds the passwords of the services, so restore it")
    return content
