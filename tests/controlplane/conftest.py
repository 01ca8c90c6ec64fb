"""The control plane under test: the real app on a real database and object store, and a caller's client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from controlplane.app import create_app
from controlplane.bootstrap import bootstrap, create_key, ensure_account, ensure_user
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.resources.tables import DatasetRow, ModelRow
from controlplane.storage import ObjectStore
from tests.controlplane import conformance
from workers.context import WorkerContext
from workers.reconcile.datasets import reconcile_dataset
from workers.reconcile.lease import due_uids
from workers.reconcile.models import reconcile_model


@pytest.fixture
def admin_key(settings: Settings) -> str:
    """A key of the first account's admin."""
    key = bootstrap(settings, with_key=True).key
    assert key is not None
    return key


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, pool_size=2)
    yield database
    database.close()


@pytest.fixture
def other_key(db: Database) -> str:
    """A key of another account's admin."""
    with db.session() as session:
        ensure_account(session, "rival", "admin@rival.example")
        user = ensure_user(session, "rival", "admin", "admin@rival.example", "admin")
        return create_key(session, user, "test")


APPS: dict[tuple[int, float], FastAPI] = {}


def app_for(settings: Settings) -> FastAPI:
    """The app with these settings. Its hundred routes take longer to make than most tests to run."""
    limits = (settings.request_body_limit, settings.request_body_seconds)
    app = APPS.setdefault(limits, APPS.get(limits) or create_app(settings))
    app.state.settings = settings
    return app


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The app without a key."""
    app = app_for(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://hearth",
            timeout=60,
            event_hooks={"response": [conformance.check]},
        ) as client,
    ):
        yield client


@pytest.fixture
async def api(http: httpx.AsyncClient, admin_key: str) -> httpx.AsyncClient:
    """The app with the key of the account `hearth`."""
    http.headers["Authorization"] = f"Bearer {admin_key}"
    return http


@pytest.fixture
def add_model(db: Database) -> Callable[..., ModelRow]:
    """Puts a model into the database: a READY base model of the account `hearth` unless told otherwise."""

    def add(
        model_id: str = "base", account_id: str = "hearth", kind: str = "HF_BASE_MODEL", **values: Any
    ) -> ModelRow:
        facts = {"supports_lora": True, "context_length": 1024, "model_type": "qwen2", "parameter_count": 7}
        fields = {"state": "READY", "facts": facts, **values}
        with db.session() as session:
            ensure_account(session, account_id, "a@x.org")
            row = ModelRow(account_id=account_id, id=model_id, kind=kind, **fields)
            session.add(row)
            return row

    return add


@pytest.fixture
def base(admin_key: str, add_model: Callable[..., ModelRow]) -> ModelRow:
    """The base model `base` of the account `hearth`."""
    return add_model()


@pytest.fixture
def uploads_worker(settings: Settings, db: Database, object_store: ObjectStore) -> Iterator[None]:
    """Reconciles uploads as soon as they are due, as the workers of a running platform do."""
    with working_on_uploads(settings, db, object_store):
        yield


@contextmanager
def working_on_uploads(settings: Settings, db: Database, object_store: ObjectStore) -> Iterator[None]:
    context = WorkerContext(settings, db, object_store, runtime=_no_runtime())
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.02):
            for table, reconcile in ((ModelRow, reconcile_model), (DatasetRow, reconcile_dataset)):
                with db.session() as session:
                    uids = due_uids(session, table, 10)
                for uid in uids:
                    reconcile(context, uid)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stopping.set()
    thread.join()


def _no_runtime() -> Any:
    """Uploads are checked without a runtime: touching it is a mistake that fails."""
    return None
