"""Has a worker and beat be seen: their logs, their numbers, their health, and the port that shows them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.beat import Scheduler
from celery.signals import (
    after_task_publish,
    beat_init,
    celeryd_init,
    setup_logging,
    worker_init,
    worker_shutdown,
)
from prometheus_client import Counter, Gauge

from controlplane.config import get_settings
from controlplane.db import Database
from controlplane.observability.health import Pulse
from controlplane.observability.logs import set_up_logs
from controlplane.observability.metrics import PoolUse, new_registry, render
from controlplane.observability.port import open_port
from controlplane.observability.traces import start_tracing
from workers.context import WorkerContext
from workers.observability.health import BeatHealth, WorkerHealth, broker, broker_answers
from workers.observability.node import Node
from workers.observability.numbers import REGISTRY
from workers.observability.platform import Queues, Rows
from workers.observability.tasks import TaskWatch
from workers.runtimes.local import LocalRuntime

PULSE = Pulse()
"""Of the loop that this process turns."""
BEAT_SECONDS = 1.0


class PulseStep(bootsteps.StartStopStep):
    """Has the consumer's loop say that it turns, whenever it begins: a lost broker clears its timers."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        PULSE.beat()
        parent.timer.call_repeatedly(BEAT_SECONDS, PULSE.beat)


class TurningScheduler(Scheduler):
    """Beat's schedule, which says that it turns."""

    def tick(self, *args: Any, **options: Any) -> float:
        PULSE.beat()
        return float(super().tick(*args, **options))


@celeryd_init.connect
@setup_logging.connect
def write_logs(loglevel: int | None = None, **_: object) -> None:
    set_up_logs(get_settings().log_format, loglevel or logging.INFO)


def watch_worker(open_context: Callable[[], WorkerContext]) -> None:
    """Have the worker of this process be seen, once it begins."""
    worker_init.connect(partial(show_worker, open_context), weak=False)


def show_worker(open_context: Callable[[], WorkerContext], **_: object) -> None:
    tracing = start_tracing("worker")
    TaskWatch(tracing).connect()
    worker_shutdown.connect(lambda **_: tracing.close(), weak=False)
    context = open_context()
    settings = context.settings
    if settings.metrics_port is None:
        return
    # Who watches a worker that is busy must not wait for a connection of its pool.
    database, valkey = Database(settings.database_url, pool_size=1), broker(settings.redis_url)
    REGISTRY.register(PoolUse("worker", context.db.engine, 2 * settings.database_pool_size))
    REGISTRY.register(Rows(database))
    REGISTRY.register(Queues(valkey))
    if isinstance(context.runtime, LocalRuntime):
        REGISTRY.register(Node(context.runtime))
    health = WorkerHealth(PULSE, partial(broker_answers, valkey), database)
    open_port(
        settings,
        metrics=partial(render, REGISTRY),
        alive=health.missing_for_life,
        ready=health.missing_for_work,
    )


@beat_init.connect
def show_beat(**_: object) -> None:
    settings = get_settings()
    registry, sent = new_registry("beat"), Pulse()
    ticks = Counter("hearth_beat_ticks", "Tasks that the broker has taken", ["task"], registry=registry)
    last = Gauge(
        "hearth_beat_last_tick_timestamp_seconds", "When the last of them was, since 1970", registry=registry
    )

    def note(sender: str | None = None, **_: object) -> None:
        sent.beat()
        last.set(time.time())
        ticks.labels(sender or "unknown").inc()

    after_task_publish.connect(note, weak=False)
    health = BeatHealth(PULSE, partial(broker_answers, broker(settings.redis_url)), sent)
    open_port(
        settings,
        metrics=partial(render, registry),
        alive=health.missing_for_life,
        ready=health.missing_for_work,
    )
