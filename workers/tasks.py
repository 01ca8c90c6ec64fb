"""The Celery tasks: an id in, one call."""

from __future__ import annotations

import uuid
from functools import lru_cache

from celery import shared_task
from celery.signals import worker_ready

from controlplane.config import get_settings
from controlplane.queue import (
    INSPECT_DATASET,
    RECONCILE_DATASET,
    RECONCILE_DEPLOYMENT,
    RECONCILE_FINE_TUNING_JOB,
    RECONCILE_MODEL,
)
from workers.autoscaling.loop import scale_deployments
from workers.context import WorkerContext
from workers.observability.parts import watch_worker
from workers.reconcile.datasets import reconcile_dataset
from workers.reconcile.deployments import bring_on_deployment
from workers.reconcile.fine_tuning.jobs import bring_on_job
from workers.reconcile.inspections import reconcile_inspection
from workers.reconcile.models import reconcile_model
from workers.reconcile.sweep import abort_abandoned_uploads, run_sweep
from workers.watch import start_watch


@lru_cache(maxsize=1)
def context() -> WorkerContext:
    """One per worker process: connections are pooled and shared by its threads."""
    return WorkerContext.from_settings(get_settings())


watch_worker(context)


@worker_ready.connect
def watch_runtimes(**_: object) -> None:
    start_watch(context)


@shared_task(name=RECONCILE_MODEL)
def model(uid: str) -> None:
    reconcile_model(context(), uuid.UUID(uid))


@shared_task(name=RECONCILE_DATASET)
def dataset(uid: str) -> None:
    reconcile_dataset(context(), uuid.UUID(uid))


@shared_task(name=RECONCILE_DEPLOYMENT)
def deployment(uid: str) -> None:
    bring_on_deployment(context(), uuid.UUID(uid))


@shared_task(name=RECONCILE_FINE_TUNING_JOB)
def fine_tuning_job(uid: str) -> None:
    bring_on_job(context(), uuid.UUID(uid))


@shared_task(name=INSPECT_DATASET)
def inspection(uid: str) -> None:
    reconcile_inspection(context(), uuid.UUID(uid))


@shared_task(name="hearth.autoscale")
def autoscale() -> None:
    scale_deployments(context())


@shared_task(name="hearth.sweep")
def sweep() -> None:
    run_sweep(context())


@shared_task(name="hearth.abort_abandoned_uploads")
def abandoned_uploads() -> None:
    abort_abandoned_uploads(context())
