"""How many GPUs a replica of a deployment holds on a cluster, where the deployment leaves that open too."""

from __future__ import annotations

from functools import partial

from controlplane.node_pools import NodePools
from controlplane.resources.deployments.accelerators import UNSPECIFIED
from controlplane.resources.deployments.tables import DeploymentRow
from controlplane.resources.models.tables import ModelRow
from controlplane.sizing import DoesNotFit, ModelSizes, first_fit, size_pod


def planned_accelerators(row: DeploymentRow, base: ModelRow, pools: NodePools) -> int:
    """What the planner would choose now. What fits nowhere counts as what it asks for."""
    possible = pools.pools_for(row.accelerator_type or UNSPECIFIED)
    asked = row.accelerator_count or 0
    weights = sum(int(file["size"]) for file in (base.files or {}).values())
    size = partial(
        size_pod,
        ModelSizes.of(weights, base.facts.get("config") or {}),
        accelerators=asked,
        precision=row.precision or "",
        tokens=row.max_context_length or base.context_length or 0,
        kv_cache_gib=0,
        check=not row.disable_deployment_size_validation,
    )
    if not possible:
        return asked or 1
    try:
        return first_fit(possible, size)[1].accelerators
    except DoesNotFit:
        return asked or 1
