"""A fine-tuning job's story on a cluster: two workers do what is due, and kubectl shows what came of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import update

from controlplane.resources.tables import FineTuningJobRow
from tests.kubernetes.story import Kubectl
from workers.context import WorkerContext
from workers.reconcile.fine_tuning.jobs import bring_on_job
from workers.reconcile.fine_tuning.strays import stop_stray_trainers
from workers.reconcile.lease import due_uids
from workers.training.running.checkpoints import list_checkpoints
from workers.watch import tell_new_ends

SECONDS = 200.0
LOOK_SECONDS = 0.1
KINDS = "jobs,pods,secrets,networkpolicies"


class JobStory:
    def __init__(
        self, workers: Sequence[WorkerContext], uid: uuid.UUID, namespace: str, kubectl: Kubectl
    ) -> None:
        self.workers, self.uid, self.namespace, self.kubectl = workers, uid, namespace, kubectl
        self._told: dict[int, frozenset[tuple[str, int]]] = {}

    def round(self) -> FineTuningJobRow:
        self.work()
        return self.row()

    def work(self) -> None:
        """What every worker does of its own accord."""
        for number, worker in enumerate(self.workers):
            self._told[number] = tell_new_ends(worker, self._told.get(number, frozenset()))
            stop_stray_trainers(worker)
            with worker.db.session() as session:
                due = due_uids(session, FineTuningJobRow, 10)
            for uid in due:
                bring_on_job(worker, uid)

    def until(self, true: Callable[[FineTuningJobRow], object], seconds: float = SECONDS) -> FineTuningJobRow:
        deadline = time.monotonic() + seconds
        while not true(row := self.round()):
            in_time = row.state != "FAILED" and time.monotonic() < deadline
            assert in_time, (row.state, row.reason, row.status_message, self.objects())
            time.sleep(LOOK_SECONDS)
        return row

    def until_training(self, attempt: int) -> FineTuningJobRow:
        """Until this attempt's trainer has got further than any before, and has kept what it got to."""
        self.until(lambda row: row.attempt == attempt)
        before = self.checkpoint()
        return self.until(lambda row: self.checkpoint() > before)

    def checkpoint(self) -> int:
        """The step of the newest one."""
        return max(list_checkpoints(self.workers[0].store, self.row().prefix), default=0)

    def row(self) -> FineTuningJobRow:
        with self.workers[0].db.session() as session:
            return session.get_one(FineTuningJobRow, self.uid)

    def is_known(self) -> bool:
        with self.workers[0].db.session() as session:
            return session.get(FineTuningJobRow, self.uid) is not None

    def change(self, **values: Any) -> None:
        with self.workers[0].db.session() as session:
            of_it = update(FineTuningJobRow).where(FineTuningJobRow.uid == self.uid)
            session.execute(of_it.values(**values))

    def objects(self) -> list[str]:
        """kind/name of everything that is the job's own."""
        found = self.kubectl.get(KINDS, self.namespace, "-l", f"hearth.dev/job-uid={self.uid}")
        return sorted(f"{each['kind']}/{each['metadata']['name']}" for each in found)

    def pod(self) -> Any:
        (found,) = self.kubectl.get("pods", self.namespace, "-l", f"hearth.dev/job-uid={self.uid}")
        return found

    def log(self) -> str:
        """What is kept of it in the object store."""
        store, prefix = self.workers[0].store, self.row().prefix
        return b"".join(store.get_bytes(each.key) for each in store.list(prefix + "log")).decode()
