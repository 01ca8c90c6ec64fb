"""Stand-ins for engines and trainers: about the reconcilers' own logic, on a real database."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from controlplane.bootstrap import ensure_account
from controlplane.config import Settings
from controlplane.db import AsyncDatabase, Database, now
from controlplane.resources.fine_tuning_jobs import jobs as intent
from controlplane.resources.tables import (
    DatasetRow,
    DeployedModelRow,
    DeploymentRow,
    FineTuningJobRow,
    ModelRow,
    ReplicaAdapterRow,
    ReplicaRow,
)
from tests.reconcile.trainers import SETTINGS, TrainerStandIn
from workers.context import WorkerContext
from workers.reconcile.deployments import reconcile_deployment
from workers.reconcile.fine_tuning.jobs import reconcile_fine_tuning_job
from workers.runtimes.base import (
    AdapterRefused,
    Endpoint,
    EngineFailure,
    EnginePhase,
    EngineUnreachable,
    NoCapacity,
    ProcessState,
    ReplicaObservation,
)
from workers.runtimes.process import ProcessOver

FILES = {"model.safetensors": {"size": 1, "sha256": "0" * 64}}


STAGING = ReplicaObservation(ProcessState.RUNNING, EnginePhase.STAGING)


@dataclass
class Engine:
    """One engine that a test moves along."""

    spec: Any
    seen: ReplicaObservation = STAGING
    adapters: set[str] = field(default_factory=set)
    told_to_stop: bool = False
    mute: bool = False
    """Says that it is healthy, and answers no request."""

    def come_up(self) -> None:
        self.seen = ReplicaObservation(ProcessState.RUNNING, EnginePhase.SERVING, healthy=True)

    def fall_silent(self) -> None:
        self.seen = ReplicaObservation(ProcessState.RUNNING, EnginePhase.LOADING)

    def crash(self, message: str = "out of memory", retryable: bool = True) -> None:
        failure = EngineFailure("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", message, retryable)
        self.seen = ReplicaObservation(ProcessState.EXITED, failure=failure)

    def vanish(self) -> None:
        self.seen = ReplicaObservation(ProcessState.LOST)

    def end(self) -> None:
        self.seen = ReplicaObservation(ProcessState.EXITED, stopped=True)


class RuntimeStandIn:
    """Keeps the runtime's promises in memory: starting twice is once, a uid lives once, stops do not wait."""

    def __init__(self) -> None:
        self.engines: dict[str, Engine] = {}
        self.starts: list[str] = []
        self.full = ""
        """Why nothing can be started now."""
        self.refused: dict[str, str] = {}
        self.without_effect: set[str] = set()
        self.silent: set[str] = set()
        self.loads: list[tuple[str, str]] = []
        self.ports = iter(range(20000, 30000))

    def choose_endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", next(self.ports))

    def start_replica(self, spec: Any) -> None:
        if spec.replica_uid in self.engines:
            if self.engines[spec.replica_uid].seen.state != ProcessState.RUNNING:
                raise ProcessOver(spec.replica_uid)
            return
        if self.full:
            raise NoCapacity(self.full)
        self.engines[spec.replica_uid] = Engine(spec)
        self.starts.append(spec.replica_uid)

    def observe_replica(self, replica_uid: str) -> ReplicaObservation:
        engine = self.engines.get(replica_uid)
        return engine.seen if engine else ReplicaObservation(ProcessState.ABSENT)

    def stop_replica(self, replica_uid: str) -> None:
        if replica_uid in self.engines:
            self.engines[replica_uid].told_to_stop = True

    def remove_replica(self, replica_uid: str) -> bool:
        engine = self.engines.get(replica_uid)
        if engine and engine.seen.state == ProcessState.RUNNING:
            return False
        self.engines.pop(replica_uid, None)
        return True

    def list_replicas(self) -> frozenset[str]:
        return frozenset(self.engines)

    def list_trainers(self) -> frozenset[tuple[str, int]]:
        return frozenset()

    def prove_base(self, replica_uid: str) -> None:
        if self.engines[replica_uid].mute:
            raise EngineUnreachable("no answer to a first request")

    def load_adapter(self, replica_uid: str, adapter: Any) -> None:
        self.loads.append((replica_uid, adapter.name))
        if adapter.name in self.silent:
            raise EngineUnreachable("the engine does not answer: timed out")
        if adapter.name in self.refused:
            raise AdapterRefused(self.refused[adapter.name])
        self.engines[replica_uid].adapters.add(adapter.name)

    def prove_adapter(self, replica_uid: str, name: str) -> bool:
        return name not in self.without_effect

    def unload_adapter(self, replica_uid: str, name: str) -> None:
        if name in self.silent:
            raise EngineUnreachable("the engine does not answer: timed out")
        self.engines[replica_uid].adapters.discard(name)

    def finish_stopping(self) -> None:
        for engine in self.engines.values():
            if engine.told_to_stop:
                engine.end()

    def only(self) -> Engine:
        (engine,) = self.engines.values()
        return engine


class DeploymentStory:
    """One deployment, and rounds over it without waiting for their time."""

    def __init__(self, context: WorkerContext, uid: uuid.UUID, base: ModelRow) -> None:
        self.context, self.uid, self.base = context, uid, base
        self.db, self.runtime = context.db, context.runtime

    def round(self, times: int = 1) -> DeploymentRow:
        """The next rounds, as if their time had come."""
        for _ in range(times):
            self.change(next_reconcile_at=func.now())
            reconcile_deployment(self.context, self.uid)
        return self.row()

    def after_backoff(self) -> DeploymentRow:
        self.change(retry_at=now() - timedelta(seconds=1))
        return self.round()

    def change(self, **values: Any) -> None:
        with self.db.session() as session:
            session.execute(update(DeploymentRow).where(DeploymentRow.uid == self.uid).values(**values))

    def come_up(self) -> DeploymentRow:
        """Rounds until every engine that is wanted is up and seen to be."""
        self.round()
        for engine in self.runtime.engines.values():
            engine.come_up()
        return self.round(2)

    def row(self) -> DeploymentRow:
        with self.db.session() as session:
            return session.get_one(DeploymentRow, self.uid)

    def replicas(self) -> list[ReplicaRow]:
        query = (
            select(ReplicaRow).where(ReplicaRow.deployment_uid == self.uid).order_by(ReplicaRow.create_time)
        )
        with self.db.session() as session:
            return list(session.scalars(query))

    def states(self) -> list[str]:
        return [replica.state for replica in self.replicas()]

    def add_model(self, model_id: str, state: str = "DEPLOYING") -> DeployedModelRow:
        """An addon of the base, deployed here."""
        with self.db.session() as session:
            model = ModelRow(
                account_id="hearth",
                id=model_id,
                kind="HF_PEFT_ADDON",
                state="READY",
                base_model_uid=self.base.uid,
                files=FILES,
            )
            session.add(model)
            session.flush()
            row = DeployedModelRow(
                account_id="hearth",
                id=f"{model_id}-1",
                model_uid=model.uid,
                deployment_uid=self.uid,
                state=state,
                default=True,
            )
            session.add(row)
            return row

    def model(self, row: DeployedModelRow) -> DeployedModelRow | None:
        with self.db.session() as session:
            return session.get(DeployedModelRow, row.uid)

    def adapters(self) -> list[ReplicaAdapterRow]:
        with self.db.session() as session:
            return list(session.scalars(select(ReplicaAdapterRow)))


@pytest.fixture
def engines() -> RuntimeStandIn:
    return RuntimeStandIn()


@pytest.fixture
def deploy(settings: Settings, engines: RuntimeStandIn):
    """Makes deployments of one base model, as the API leaves them."""
    database = Database(settings.database_url, pool_size=4)
    context = WorkerContext(settings, database, None, engines)  # type: ignore[arg-type]
    with database.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        base = ModelRow(account_id="hearth", id="base", kind="HF_BASE_MODEL", state="READY", files=FILES)
        session.add(base)

    def make(deployment_id: str = "d", **values: Any) -> DeploymentStory:
        with database.session() as session:
            row = DeploymentRow(
                account_id="hearth",
                id=deployment_id,
                base_model_uid=base.uid,
                **{"state": "CREATING", "max_replica_count": 3, "next_reconcile_at": func.now(), **values},
            )
            session.add(row)
            session.flush()
            return DeploymentStory(context, row.uid, base)

    yield make
    database.close()


@pytest.fixture
def db(settings):
    database = Database(settings.database_url, pool_size=2)
    yield database
    database.close()


@pytest.fixture
def trainer():
    return TrainerStandIn()


@pytest.fixture
def context(settings, db, object_store, trainer):
    return WorkerContext(settings, db, object_store, trainer)


@pytest.fixture
def add_job(db):
    """Adds a job that is due, over one base model and one dataset."""
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        files = {"f": {"size": 1, "sha256": "0" * 64}}
        base = ModelRow(account_id="hearth", id="base", kind="HF_BASE_MODEL", state="READY", files=files)
        data = DatasetRow(account_id="hearth", id="data", state="READY", files=files)
        session.add_all([base, data])

    def add(job_id="job", **values):
        with db.session() as session:
            row = FineTuningJobRow(
                account_id="hearth",
                id=job_id,
                kind="conversation",
                model_id=f"{job_id}-model",
                base_model_uid=base.uid,
                dataset_uid=data.uid,
                **{
                    "settings": SETTINGS,
                    "state": "CREATING",
                    "next_reconcile_at": func.now(),
                    **values,
                },
            )
            session.add(row)
            session.flush()
            return row.uid

    return add


@pytest.fixture
def step(context, db):
    """Reconciles a job once, now, and returns its row."""

    def once(uid):
        with db.session() as session:
            session.execute(
                update(FineTuningJobRow)
                .where(FineTuningJobRow.uid == uid)
                .values(next_reconcile_at=func.now())
            )
        reconcile_fine_tuning_job(context, uid)
        with db.session() as session:
            return session.get(FineTuningJobRow, uid)

    return once


@pytest.fixture
def running(add_job, step):
    """A job whose trainer is at work."""
    uid = add_job()
    step(uid)
    step(uid)
    return uid


@pytest.fixture
def ask(settings):
    """Cancels, pauses, resumes or deletes a job as the API does."""

    def change(uid, what):
        asyncio.run(_change(settings.database_url, uid, what))

    return change


async def _change(database_url, uid, what):
    database = AsyncDatabase(database_url, pool_size=1)
    try:
        async with database.session() as session:
            row = await session.get_one(FineTuningJobRow, uid, with_for_update=True)
            if what == "resume":
                await intent.resume_job(session, row)
            else:
                {"cancel": intent.cancel_job, "delete": intent.delete_job, "pause": intent.pause_job}[what](
                    row
                )
    finally:
        await database.close()
