"""The clusters that the node pools are on, each reached when it is first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from controlplane.config import Settings
from controlplane.node_pools import NodePools
from workers.runtimes.base import RuntimeUnavailable
from workers.runtimes.kubernetes.cluster import Cluster, Refused
from workers.runtimes.kubernetes.manifests import managed
from workers.runtimes.kubernetes.site import Site

log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Sites:
    """Keeps nothing that matters. `close` ends their watches."""

    def __init__(self, pools: NodePools) -> None:
        self.pools = pools
        self._sites: dict[str, Site] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Sites:
        if settings.node_pools is None:
            raise ValueError("HEARTH_NODE_POOLS is not set")
        return cls(settings.node_pools)

    def of(self, context: str) -> Site:
        """Raises RuntimeUnavailable where the context is not known."""
        with self._lock:
            if context not in self._sites:
                self._sites[context] = Site(context, Cluster.of_context(context), managed(self.pools))
            return self._sites[context]

    def each(
        self, ask: Callable[[Site], Found], besides: str | None = None, *, silently: bool = False
    ) -> tuple[list[Found], list[str]]:
        """(answers, why others gave none): a cluster that is away holds up nothing on another one."""
        level = logging.DEBUG if silently else logging.WARNING
        found, silent = [], []
        for context in sorted({pool.context for pool in self.pools.pools} - {besides}):
            try:
                with refusals_pass():
                    found.append(ask(self.of(context)))
            except RuntimeUnavailable as error:
                log.log(level, "the cluster %s is left out: %s", context or "of the workers", error)
                silent.append(f"the cluster {context or 'of the workers'}: {error}")
        return found, silent

    def all(self, ask: Callable[[Site], Found]) -> list[Found]:
        """Their answers. Raises RuntimeUnavailable where one gave none: what it has must be known."""
        found, silent = self.each(ask)
        if silent:
            raise RuntimeUnavailable("; ".join(silent))
        return found

    def close(self) -> None:
        for site in self._sites.values():
            site.close()


@contextmanager
def refusals_pass() -> Iterator[None]:
    """What a cluster refuses beside a declaration may be granted later: a right that is missing, for one."""
    try:
        yield
    except Refused as error:
        raise RuntimeUnavailable(f"the cluster refuses it for now: {error.message}") from error
