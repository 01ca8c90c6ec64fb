"""The published `fireworks-ai` package against the real app, over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvicorn
from fireworks import AsyncFireworks, Fireworks

from controlplane.app import create_app
from controlplane.bootstrap import create_key, ensure_user
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.storage import ObjectStore
from tests.controlplane.conftest import admin_key, db, other_key, uploads_worker
from tests.sdk.tls import behind_tls, self_signed

__all__ = ["admin_key", "db", "other_key", "uploads_worker"]

START_SECONDS = 30.0


@pytest.fixture
def base_url(settings: Settings, object_store: ObjectStore) -> Iterator[str]:
    """The address of the app, served by uvicorn from a thread on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(settings), log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            pytest.fail("the app did not start")
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(START_SECONDS)
    listener.close()


@pytest.fixture
def client(base_url: str, admin_key: str) -> Iterator[Fireworks]:
    """The package's client for the account `hearth`; an answer of another shape than it expects fails."""
    options = {"api_key": admin_key, "account_id": "hearth", "base_url": base_url}
    with Fireworks(**options, max_retries=0, _strict_response_validation=True) as found:
        yield found


@pytest.fixture
async def async_client(base_url: str, admin_key: str) -> AsyncIterator[AsyncFireworks]:
    options = {"api_key": admin_key, "account_id": "hearth", "base_url": base_url}
    async with AsyncFireworks(**options, max_retries=0, _strict_response_validation=True) as found:
        yield found


@pytest.fixture
def rival_client(base_url: str, other_key: str) -> Iterator[Fireworks]:
    """The client of another account's admin."""
    options = {"api_key": other_key, "account_id": "rival", "base_url": base_url}
    with Fireworks(**options, max_retries=0, _strict_response_validation=True) as found:
        yield found


@pytest.fixture
def viewer_client(base_url: str, admin_key: str, db: Database) -> Iterator[Fireworks]:
    """The client of a user of `hearth` who may run inference and look, and nothing else."""
    with db.session() as session:
        user = ensure_user(session, "hearth", "viewer", "viewer@hearth.example", "inference-user")
        key = create_key(session, user, "test")
    options = {"api_key": key, "account_id": "hearth", "base_url": base_url}
    with Fireworks(**options, max_retries=0, _strict_response_validation=True) as found:
        yield found


@pytest.fixture
def https_store(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has signed URLs made for https, as parts of the package insist on. To be asked for before a client."""
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with behind_tls(settings.s3_endpoint, certificate) as address:
        settings.s3_public_endpoint = address
        yield
