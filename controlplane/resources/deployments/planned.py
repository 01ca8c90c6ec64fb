"""How many GPUs a replica of a deployment holds on a cluster, where the deployment leaves that open too."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from controlplane.node_pools import NodePools
from controlplane.regions import Regions
from controlplane.resources.deployments.accelerators import UNSPECIFIED
from controlplane.sizing import LONG_PROMPT_FACTOR, DoesNotFit, ModelSizes, first_fit, size_pod


class Asking(Protocol):
    """What counts of a deployment: its row has it."""

    @property
    def accelerator_type(self) -> str: ...
    @property
    def accelerator_count(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def max_context_length(self) -> int: ...
    @property
    def disable_deployment_size_validation(self) -> bool: ...
    @property
    def long_prompt(self) -> bool: ...
    @property
    def placement(self) -> dict[str, Any]: ...


class Sized(Protocol):
    """What counts of its models."""

    @property
    def files(self) -> dict[str, Any]: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def context_length(self) -> int: ...


def leaves_open(row: Asking, pools: NodePools) -> bool:
    """Whether it depends on the model how many there are."""
    if row.accelerator_count:
        return False
    return pools.has_gpus(row.accelerator_type or UNSPECIFIED, Regions.of(row.placement))


def unsized_accelerators(row: Asking) -> int:
    """Of a replica that has any, where nobody looks at the size of its model."""
    return row.accelerator_count or (LONG_PROMPT_FACTOR if row.long_prompt else 1)


def planned_accelerators(
    row: Asking, base: Sized | None, pools: NodePools, draft: Sized | None = None
) -> int:
    """What the planner would choose now; what fits nowhere counts as one.

    `base` may be missing where the deployment leaves nothing open. `draft` guesses ahead for it.
    """
    possible = pools.pools_for(row.accelerator_type or UNSPECIFIED, Regions.of(row.placement))
    if base is None or not leaves_open(row, pools):
        on_cpu = bool(possible) and possible[0].on_cpu
        return 0 if on_cpu else unsized_accelerators(row)
    size = partial(
        size_pod,
        replace(sizes_of(base), draft=sizes_of(draft)) if draft else sizes_of(base),
        accelerators=0,
        precision=row.precision or "",
        tokens=row.max_context_length or base.context_length or 0,
        kv_cache_gib=0,
        check=not row.disable_deployment_size_validation,
        long_prompt=bool(row.long_prompt),
    )
    try:
        return first_fit(possible, size)[1].accelerators
    except DoesNotFit:
        return 1


def sizes_of(model: Sized) -> ModelSizes:
    weights = sum(int(file["size"]) for file in (model.files or {}).values())
    return ModelSizes.of(weights, model.facts.get("config") or {})
