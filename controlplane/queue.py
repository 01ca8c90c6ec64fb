"""Hints to the workers. The sweep is the guarantee: a lost hint costs a delay, never an outcome."""

from __future__ import annotations

import logging
import time
import uuid
from functools import lru_cache
from typing import Any

from celery import Celery
from celery.signals import before_task_publish
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from controlplane.config import Settings
from controlplane.observability.logs import FACTS
from controlplane.observability.traces import TRACE

log = logging.getLogger(__name__)

CONTROL_QUEUE = "control"
TRAINING_QUEUE = "training"

RECONCILE_MODEL = "hearth.reconcile_model"
RECONCILE_DATASET = "hearth.reconcile_dataset"
RECONCILE_DEPLOYMENT = "hearth.reconcile_deployment"
RECONCILE_FINE_TUNING_JOB = "hearth.reconcile_fine_tuning_job"
INSPECT_DATASET = "hearth.inspect_dataset"

QUEUE_OF = {RECONCILE_FINE_TUNING_JOB: TRAINING_QUEUE, INSPECT_DATASET: TRAINING_QUEUE}

# What a message says of itself besides.
SENT_AT = "hearth_sent_at"
REQUEST_ID = "hearth_request_id"
TRACEPARENT = "hearth_traceparent"

# A broker that is down must cost a request no more than this.
BROKER_TIMEOUT_SECONDS = 1.0


@lru_cache(maxsize=4)
def sender(redis_url: str) -> Celery:
    app = Celery("hearth", broker=redis_url)
    app.conf.broker_transport_options = {
        "socket_connect_timeout": BROKER_TIMEOUT_SECONDS,
        "socket_timeout": BROKER_TIMEOUT_SECONDS,
        "max_retries": 0,
    }
    app.conf.task_ignore_result = True
    return app


def enqueue(settings: Settings, task: str, uid: uuid.UUID) -> None:
    """Ask a worker to look at a row now. Never raises; waits for the broker a second at most."""
    try:
        sender(settings.redis_url).send_task(
            task, args=[str(uid)], queue=QUEUE_OF.get(task, CONTROL_QUEUE), retry=False, expires=60
        )
    except (KombuError, RedisError, OSError) as error:
        log.warning("the broker took no hint for %s %s: %s", task, uid, error)


@before_task_publish.connect
def say_where_from(headers: dict[str, Any] | None = None, **_: object) -> None:
    """When a message was sent, and which request has caused it."""
    if headers is None:
        return
    headers[SENT_AT] = time.time()
    if request_id := FACTS.get().get("request_id"):
        headers[REQUEST_ID] = request_id
    if traceparent := TRACE.get().traceparent:
        headers[TRACEPARENT] = traceparent
