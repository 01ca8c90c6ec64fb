"""A deployment's story on a cluster: rounds of the real reconcile, and kubectl to see what came of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow, ReplicaRow
from workers.context import WorkerContext
from workers.reconcile.deployments import reconcile_deployment

SECONDS = 60.0
LOOK_SECONDS = 0.1
KUBECTL = Path(sys.executable).with_name("kubectl")


@dataclass(frozen=True)
class Kubectl:
    """kubectl as an observer: it knows nothing of what Hearth believes."""

    kubeconfig: Path

    def __call__(self, *words: str, expect: int = 0) -> str:
        command = [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == expect, done.stderr
        return done.stdout

    def get(self, kind: str, namespace: str, *words: str) -> list[Any]:
        found = json.loads(self("get", kind, "-n", namespace, "-o", "json", *words))
        return list(found["items"])


class Story:
    """One deployment, and rounds over it until something is so."""

    def __init__(self, context: WorkerContext, uid: uuid.UUID, namespace: str, kubectl: Kubectl) -> None:
        self.context, self.uid, self.namespace, self.kubectl = context, uid, namespace, kubectl
        self.selector = ("-l", f"hearth.dev/deployment-uid={uid}")

    def round(self) -> DeploymentRow:
        self.change(next_reconcile_at=func.now())
        reconcile_deployment(self.context, self.uid)
        return self.row()

    def until(self, true: Callable[[DeploymentRow], object], seconds: float = SECONDS) -> DeploymentRow:
        """Rounds, until it is true of the deployment; else what stands in the way."""
        deadline = time.monotonic() + seconds
        while not true(row := self.round()):
            assert time.monotonic() < deadline, (
                f"{row.state} {row.reason} {row.status_message} {self.states()}"
            )
            time.sleep(LOOK_SECONDS)
        return row

    def until_ready(self) -> DeploymentRow:
        return self.until(lambda row: row.state == "READY")

    def change(self, **values: Any) -> None:
        with self.context.db.session() as session:
            session.execute(update(DeploymentRow).where(DeploymentRow.uid == self.uid).values(**values))

    def update(self, **values: Any) -> None:
        """As PATCH does with what a running engine cannot take."""
        self.change(state="UPDATING", generation=DeploymentRow.generation + 1, **values)

    def row(self) -> DeploymentRow:
        with self.context.db.session() as session:
            return session.get_one(DeploymentRow, self.uid)

    def replicas(self) -> list[ReplicaRow]:
        of_it = select(ReplicaRow).where(ReplicaRow.deployment_uid == self.uid)
        with self.context.db.session() as session:
            return list(session.scalars(of_it.order_by(ReplicaRow.create_time)))

    def states(self) -> list[str]:
        return sorted(replica.state for replica in self.replicas())

    def pods(self) -> list[Any]:
        return self.kubectl.get("pods", self.namespace, *self.selector)

    def deployment(self) -> Any:
        return self.kubectl.get("deployments", self.namespace, *self.selector)[0]

    def name(self) -> str:
        """Of its objects."""
        return f"d-{self.row().id}-{str(self.uid)[:8]}"

    def objects(self) -> list[str]:
        """kind/name of everything that is the deployment's own."""
        kinds = "deployments,replicasets,pods,services,serviceaccounts,poddisruptionbudgets"
        found = self.kubectl.get(kinds, self.namespace, *self.selector)
        return sorted(each["kind"] for each in found)

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of what Hearth says to those who have only kubectl."""
        found = self.kubectl.get("events", self.namespace)
        mine = [each for each in found if each.get("source", {}).get("component") == "hearth"]
        return [(each["reason"], each["message"]) for each in mine]

    def add_addon(self, base: ModelRow, name: str) -> DeployedModelRow:
        with self.context.db.session() as session:
            files = {"adapter_model.safetensors": {"size": 1, "sha256": "0" * 64}}
            model = ModelRow(
                account_id=base.account_id,
                id=name,
                kind="HF_PEFT_ADDON",
                state="READY",
                base_model_uid=base.uid,
                files=files,
            )
            session.add(model)
            session.flush()
            row = DeployedModelRow(
                account_id=base.account_id,
                id=f"{name}-1",
                model_uid=model.uid,
                deployment_uid=self.uid,
                state="DEPLOYING",
                default=True,
            )
            session.add(row)
            return row

    def model(self, row: DeployedModelRow) -> DeployedModelRow:
        with self.context.db.session() as session:
            return session.get_one(DeployedModelRow, row.uid)
