"""The real control plane in a process of its own, with a few resources to aim at."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from controlplane.bootstrap import bootstrap
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.encryption import generate_secret_key
from controlplane.resources.tables import DatasetRow, ModelRow
from controlplane.storage import ObjectStore

START_SECONDS = 60.0


@pytest.fixture(scope="module")
def target(platform_services, template_database, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client with an admin's key; its base_url is the server's."""
    settings = fresh_settings(platform_services, template_database, tmp_path_factory.mktemp("data"))
    ObjectStore.from_settings(settings).ensure_bucket()
    key = bootstrap(settings, with_key=True).key
    listener = socket.create_server(("127.0.0.1", 0))
    log = tmp_path_factory.mktemp("log") / "api.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher.serve", "controlplane.app:create_app", str(listener.fileno())],
        env=os.environ | environment(settings),
        pass_fds=[listener.fileno()],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        wait_until_ready(client, process, log)
        furnish(client, settings)
        yield client
    process.terminate()
    process.wait(START_SECONDS)
    listener.close()


def fresh_settings(services, template: str, data_dir: Path) -> Settings:
    from tests.conftest import admin_connection, database_address

    name = f"fuzz_{secrets.token_hex(6)}"
    with admin_connection(services) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    return Settings(
        database_url=database_address(services, name),
        redis_url=services.valkey.url,
        s3_endpoint=services.seaweedfs.endpoint,
        s3_access_key=services.seaweedfs.access_key,
        s3_secret_key=services.seaweedfs.secret_key,
        s3_bucket=f"fuzz-{secrets.token_hex(6)}",
        data_dir=data_dir,
        secret_keys=generate_secret_key(),
        verdict_wait_seconds=0,  # nobody checks uploads here
    )


def environment(settings: Settings) -> dict[str, str]:
    """The settings as another process reads them."""
    chosen = settings.model_dump(exclude_unset=True)
    for name, value in chosen.items():
        chosen[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return {f"HEARTH_{name.upper()}": str(value) for name, value in chosen.items()}


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the control plane did not start: {log.read_text()[-2000:]}")
        time.sleep(0.02)


def furnish(client: httpx.Client, settings: Settings) -> None:
    """Resources with the names that the cases aim at."""
    database = Database(settings.database_url, pool_size=1)
    ready = {"account_id": "hearth", "state": "READY"}
    facts = {"supports_lora": True, "architecture": "LlamaForCausalLM", "parameter_count": 10}
    with database.session() as session:
        session.add(ModelRow(**ready, id="base", kind="HF_BASE_MODEL", facts=facts, context_length=512))
        session.add(
            DatasetRow(**ready, id="chat", format="CHAT", example_count=100, estimated_token_count=1000)
        )
    database.close()
    for method, path, body in FURNITURE:
        answer = client.request(method, f"/v1/accounts/hearth/{path}", json=body)
        assert answer.status_code == 200, (path, answer.text)


FURNITURE: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "users?userId=ada", {"email": "ada@x.org", "role": "user"}),
    ("POST", "users/ada/apiKeys", {"apiKey": {"displayName": "a"}}),
    ("POST", "models", {"modelId": "uploading", "model": {"kind": "HF_BASE_MODEL"}}),
    ("POST", "datasets", {"datasetId": "uploading", "dataset": {}}),
    ("POST", "secrets", {"name": "secret", "keyName": "KEY", "value": "hidden"}),
    ("POST", "deploymentShapes?deploymentShapeId=shape", {"baseModel": "base"}),
    ("POST", "deployments?deploymentId=live", {"baseModel": "base", "enableAddons": True}),
    (
        "POST",
        "fineTuningJobs?fineTuningJobId=job",
        {"baseModel": "base", "dataset": "chat", "conversation": {}},
    ),
    (
        "POST",
        "supervisedFineTuningJobs?supervisedFineTuningJobId=job",
        {"baseModel": "base", "dataset": "chat"},
    ),
]
