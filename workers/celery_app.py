"""The Celery app: the broker's settings, the two queues, the periodic sweep, and the autoscaler's looks."""

from __future__ import annotations

from celery import Celery

from controlplane.config import get_settings
from controlplane.queue import CONTROL_QUEUE, QUEUE_OF
from workers.observability.parts import PulseStep

SWEEP_SECONDS = 1.0
AUTOSCALE_SECONDS = 2.0
# This asks the store for all unfinished uploads, for what is days old.
ABANDONED_UPLOADS_SECONDS = 900.0

app = Celery("hearth", broker=get_settings().redis_url, include=["workers.tasks"])
app.conf.update(
    task_ignore_result=True,
    task_default_queue=CONTROL_QUEUE,
    task_routes={task: {"queue": queue} for task, queue in QUEUE_OF.items()},
    # A task is a hint to look at a row: doing it twice is harmless, and a lost one is swept up again.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    beat_schedule={
        "sweep": {
            "task": "hearth.sweep",
            "schedule": SWEEP_SECONDS,
            # A sweep that nobody took within its period is worth nothing any more.
            "options": {"expires": SWEEP_SECONDS * 2, "queue": CONTROL_QUEUE},
        },
        "abandoned uploads": {
            "task": "hearth.abort_abandoned_uploads",
            "schedule": ABANDONED_UPLOADS_SECONDS,
            "options": {"expires": ABANDONED_UPLOADS_SECONDS, "queue": CONTROL_QUEUE},
        },
        "autoscale": {
            "task": "hearth.autoscale",
            "schedule": AUTOSCALE_SECONDS,
            "options": {"expires": AUTOSCALE_SECONDS * 2, "queue": CONTROL_QUEUE},
        },
    },
)
app.steps["consumer"].add(PulseStep)
