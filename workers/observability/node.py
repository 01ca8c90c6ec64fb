"""What this worker's own machine runs."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from controlplane.observability.metrics import gauges
from workers.runtimes.local import LocalRuntime


class Node(Collector):
    def __init__(self, runtime: LocalRuntime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        used, known = self._runtime.accelerators_in_use()
        trainers = len(self._runtime.list_trainers() - self._runtime.ended_trainers())
        samples = [(["used"], used), (["free"], known - used)]
        yield gauges("hearth_worker_accelerators", "This machine's GPUs", ["state"], samples)
        yield gauges("hearth_worker_trainers", "Trainers that run on this machine", [], [([], trainers)])
