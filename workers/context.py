"""What a reconcile needs: settings, database, object store and runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from controlplane.config import Settings
from controlplane.db import Database
from controlplane.storage import ObjectStore
from workers.runtimes.base import Runtime
from workers.runtimes.local import LocalRuntime


@dataclass(frozen=True)
class WorkerContext:
    settings: Settings
    db: Database
    store: ObjectStore
    runtime: Runtime

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings,
            Database(settings.database_url, settings.database_pool_size),
            ObjectStore.from_settings(settings),
            LocalRuntime(settings),
        )
