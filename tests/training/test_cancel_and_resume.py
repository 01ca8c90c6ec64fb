"""Jobs that are cancelled wherever they are, and go on to their end: the real app, reconcilers, trainer."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from controlplane.app import create_app
from controlplane.bootstrap import bootstrap
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, LedgerRow, ModelRow
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from tests.training.conftest import PLAIN_TEMPLATE
from workers.context import WorkerContext
from workers.reconcile.datasets import reconcile_dataset
from workers.reconcile.fine_tuning.jobs import reconcile_fine_tuning_job
from workers.reconcile.lease import due_uids
from workers.reconcile.models import reconcile_model
from workers.training.running.checkpoints import list_checkpoints

pytestmark = pytest.mark.training

JOBS = "/v1/accounts/hearth/supervisedFineTuningJobs"
RECONCILED = (
    (ModelRow, reconcile_model),
    (DatasetRow, reconcile_dataset),
    (FineTuningJobRow, reconcile_fine_tuning_job),
)
DEADLINE_SECONDS = 150
CANCEL_SECONDS = 10
COLOURS = ["red", "green", "blue", "white"]
EPOCHS, ROWS, ROWS_A_STEP = 40, 48, 4
STEPS = EPOCHS * ROWS // ROWS_A_STEP
HELD_OUT_ROWS = 3000
"""Measured one by one they take ten seconds and more; so do the rows of a job with this template."""
LONG_WINDED = PLAIN_TEMPLATE + "{% for i in range(3000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}"
BUSY_WITH = {
    "VALIDATING": {"jinjaTemplate": LONG_WINDED},
    "EVALUATING": {"evaluationDataset": "held-out"},
}


@pytest.fixture
def settings(settings: Settings, platform_services: Services, database_url: str) -> Settings:
    """With a database, which trainers never see."""
    address = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    return settings.model_copy(
        update={"database_url": address, "redis_url": platform_services.valkey.url, "max_trainers": 2}
    )


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, pool_size=4)
    yield database
    database.close()


@pytest.fixture
def workers(settings: Settings, db: Database, object_store: ObjectStore) -> Iterator[None]:
    """Reconciles whatever is due, as the workers of a running platform do, until the test is over."""
    context = WorkerContext.from_settings(settings)
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.05):
            for table, reconcile in RECONCILED:
                with db.session() as session:
                    uids = due_uids(session, table, 10)
                for uid in uids:
                    reconcile(context, uid)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stopping.set()
    thread.join()
    for directory in (settings.data_dir / "run" / "trainers").glob("*"):
        uid, _, attempt = directory.name.rpartition("-")
        context.runtime.stop_trainer(uid, int(attempt))


@pytest.fixture
def api(settings: Settings) -> Iterator[TestClient]:
    key = bootstrap(settings, with_key=True).key
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


@pytest.fixture
def inputs(db: Database, api: TestClient, object_store: ObjectStore, tiny_model: Path) -> None:
    """A base model and some datasets, uploaded and still to be checked."""
    texts = [
        {"prompt": f"the colour of sky {i % 4} is", "completion": f" {COLOURS[i % 4]}"} for i in range(9)
    ]
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    upload(db, object_store, ModelRow(id="base", kind="HF_BASE_MODEL"), files)
    for name, rows in (("talk", ROWS), ("held-out", HELD_OUT_ROWS)):
        upload(db, object_store, DatasetRow(id=name), {"rows.jsonl": as_lines(list(map(talk, range(rows))))})
    upload(db, object_store, DatasetRow(id="texts"), {"rows.jsonl": as_lines(texts)})


def talk(number: int) -> dict[str, Any]:
    asked = {"role": "user", "content": f"the colour of sky {number % 4}"}
    return {"messages": [asked, {"role": "assistant", "content": COLOURS[number % 4]}]}


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload(db: Database, store: ObjectStore, row: Any, files: dict[str, bytes]) -> None:
    row.account_id, row.state, row.reason, row.next_reconcile_at = (
        "hearth",
        "UPLOADING",
        "CHECKING",
        func.now(),
    )
    row.files = {name: {"size": len(content), "sha256": ""} for name, content in files.items()}
    with db.session() as session:
        session.add(row)
        session.flush()
        prefix = row.prefix
        for name, content in files.items():
            store.put_bytes(prefix + name, content)


def until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def ready(api: TestClient, *paths: str) -> None:
    def waiting() -> list[str]:
        found = [api.get(f"/v1/accounts/hearth/{path}").json() for path in paths]
        return [str(message) for message in found if message["state"] != "READY"]

    until(waiting, lambda found: not found)


def prefix_of(db: Database) -> str:
    with db.session() as session:
        return session.scalars(select(FineTuningJobRow)).one().prefix


def left_on_node(settings: Settings) -> list[str]:
    """What is on the node of trainers: their folders, and processes that are at work in one."""
    folder = settings.data_dir / "run" / "trainers"
    found = [str(path) for path in folder.iterdir()]
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append((entry / "cmdline").read_text())
    return found


def phase_of(job: dict[str, Any]) -> str:
    assert job["state"] != "JOB_STATE_FAILED", job["status"]
    return str(job.get("jobProgress", {}).get("phase", ""))


def leased(db: Database) -> list[str]:
    """The jobs that a worker still holds, or is to come back to."""
    held = FineTuningJobRow.lease_token.is_not(None) | FineTuningJobRow.next_reconcile_at.is_not(None)
    with db.session() as session:
        return list(session.scalars(select(FineTuningJobRow.id).where(held)))


def step_of(job: dict[str, Any]) -> int:
    return int(job["jobProgress"]["totalProcessedRequests"] // ROWS_A_STEP)


def test_a_job_is_paused_and_cancelled_while_it_trains_and_resumed_to_its_end(
    api: TestClient,
    inputs: None,
    workers: None,
    object_store: ObjectStore,
    db: Database,
    settings: Settings,
) -> None:
    ready(api, "models/base", "datasets/talk")
    body = {
        "dataset": "talk",
        "baseModel": "base",
        "epochs": EPOCHS,
        "learningRate": 0.02,
        "batchSizeSamples": ROWS_A_STEP,
        "maxContextLength": 128,
    }
    made = api.post(f"{JOBS}?supervisedFineTuningJobId=sky", json=body)
    assert made.status_code == 200, made.text

    def job() -> dict[str, Any]:
        found: dict[str, Any] = api.get(f"{JOBS}/sky").json()
        return found

    def trained(found: dict[str, Any]) -> bool:
        assert found["state"] != "JOB_STATE_FAILED", found["status"]
        return found.get("jobProgress", {}).get("inputTokens", 0) > 0

    until(job, trained)
    assert api.post(f"{JOBS}/sky:pause", json={}).json() == {}
    paused = until(job, lambda found: found["state"] == "JOB_STATE_PAUSED")
    (done,) = list_checkpoints(object_store, prefix_of(db))[:1]
    assert 0 < paused["jobProgress"]["percent"] < 100
    assert api.post(f"{JOBS}/sky:resume", json={}).json()["state"] == "JOB_STATE_PENDING"

    until(job, lambda found: trained(found) and step_of(found) > done)
    asked = time.monotonic()
    assert api.post(f"{JOBS}/sky:cancel", json={}).json() == {}
    assert job()["state"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    over = until(job, lambda found: found["state"] == "JOB_STATE_CANCELLED")
    assert time.monotonic() - asked < CANCEL_SECONDS
    assert over["jobProgress"]["percent"] < 100
    until(lambda: list((settings.data_dir / "run" / "trainers").iterdir()), lambda left: not left)
    assert over["completedTime"]

    assert api.post(f"{JOBS}/sky:resume", json={}).json()["state"] == "JOB_STATE_PENDING"
    ended = until(job, lambda found: found["state"] in ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED"))
    assert ended["state"] == "JOB_STATE_COMPLETED", ended["status"]
    assert (ended["jobProgress"]["percent"], ended["jobProgress"]["epoch"]) == (100, EPOCHS)
    assert ended["jobProgress"]["totalProcessedRequests"] == EPOCHS * ROWS

    lines = [json.loads(line) for line in httpx.get(ended["metricsFileSignedUrl"]).text.splitlines()]
    steps = Counter(line["step"] for line in lines if "loss" in line)
    assert steps == Counter(range(1, STEPS + 1))
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]
    model = api.get("/v1/accounts/hearth/models/sky").json()
    assert (model["state"], model["fineTuningJob"]) == ("READY", ended["name"])


def test_a_job_is_cancelled_while_it_prepares_and_while_it_evaluates_and_leaves_nothing_behind(
    api: TestClient,
    inputs: None,
    workers: None,
    object_store: ObjectStore,
    db: Database,
    settings: Settings,
) -> None:
    ready(api, "models/base", "datasets/talk", "datasets/held-out")
    for phase, more in BUSY_WITH.items():
        body = {"dataset": "talk", "baseModel": "base", "batchSizeSamples": 1, **more}
        made = api.post(f"{JOBS}?supervisedFineTuningJobId={phase.lower()}", json=body)
        assert made.status_code == 200, made.text

    for phase in BUSY_WITH:
        cancel_in(api, phase)

    until(lambda: left_on_node(settings), lambda left: not left)
    until(lambda: leased(db), lambda left: not left)
    with db.session() as session:
        rows = session.scalars(select(FineTuningJobRow)).all()
        assert session.scalars(select(ModelRow.id)).all() == ["base"]
        assert not session.scalars(select(LedgerRow)).all()
    for row in rows:
        left = {info.key.removeprefix(row.prefix) for info in object_store.list(row.prefix)}
        assert {key for key in left if not key.startswith("log/")} == {"progress.json"}, row.id


def cancel_in(api: TestClient, phase: str) -> None:
    """Cancel the job of this name as soon as it is in this phase; it does not come out of it."""
    job = f"{JOBS}/{phase.lower()}"
    until(lambda: api.get(job).json(), lambda found: phase_of(found) == phase)
    asked = time.monotonic()
    assert api.post(f"{job}:cancel", json={}).json() == {}
    over = until(lambda: api.get(job).json(), lambda found: found["state"] == "JOB_STATE_CANCELLED")
    assert time.monotonic() - asked < CANCEL_SECONDS
    assert phase_of(over) == phase


def test_rows_of_prompt_and_completion_in_packs_of_tokens_become_a_model(
    api: TestClient, inputs: None, workers: None
) -> None:
    ready(api, "models/base", "datasets/texts")
    body = {"dataset": "texts", "baseModel": "base", "epochs": 2, "batchSize": 64, "maxContextLength": 32}
    made = api.post(f"{JOBS}?supervisedFineTuningJobId=texts", json=body)
    assert made.status_code == 200, made.text
    ended = until(
        lambda: api.get(f"{JOBS}/texts").json(),
        lambda found: found["state"] in ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED"),
    )
    assert ended["state"] == "JOB_STATE_COMPLETED", ended["status"]
    assert api.get("/v1/accounts/hearth/models/texts").json()["state"] == "READY"
