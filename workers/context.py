"""What a reconcile needs: settings, database, object store and runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from controlplane.config import Settings
from controlplane.db import Database
from controlplane.storage import ObjectStore
from workers.runtimes.base import Fleets, Runtime
from workers.runtimes.local import LocalRuntime


@dataclass(frozen=True)
class WorkerContext:
    settings: Settings
    db: Database
    store: ObjectStore
    runtime: Runtime
    """This machine: trainers run on it, and engines unless there are fleets."""
    fleets: Fleets | None = None
    """A cluster that keeps the replicas of deployments."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings,
            Database(settings.database_url, settings.database_pool_size),
            ObjectStore.from_settings(settings),
            LocalRuntime(settings),
            fleets_of(settings),
        )


def fleets_of(settings: Settings) -> Fleets | None:
    if settings.node_pools is None:
        return None
    from workers.runtimes.kubernetes import KubernetesFleets  # only a cluster needs its client

    return KubernetesFleets(settings)
