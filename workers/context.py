"""What a reconcile needs: settings, database, object store and runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from controlplane.config import Settings
from controlplane.db import Database
from controlplane.storage import ObjectStore
from workers.runtimes.base import Fleets, Runtime, Trainers
from workers.runtimes.local import LocalRuntime


@dataclass(frozen=True)
class WorkerContext:
    settings: Settings
    db: Database
    store: ObjectStore
    runtime: Runtime
    """This machine: engines and trainers run on it, unless there is a cluster."""
    fleets: Fleets | None = None
    """A cluster that keeps the replicas of deployments."""
    jobs: Trainers | None = None
    """A cluster that runs the trainers."""

    @property
    def trainers(self) -> Trainers:
        return self.jobs or self.runtime

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings,
            Database(settings.database_url, settings.database_pool_size),
            ObjectStore.from_settings(settings),
            LocalRuntime(settings),
            *on_cluster(settings),
        )


def on_cluster(settings: Settings) -> tuple[Fleets | None, Trainers | None]:
    if settings.node_pools is None:
        return None, None
    # Only a cluster needs its client.
    from workers.runtimes.kubernetes import KubernetesFleets, KubernetesTrainers, Sites

    sites = Sites.from_settings(settings)
    return KubernetesFleets(settings, sites), KubernetesTrainers(settings, sites)
