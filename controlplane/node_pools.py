"""Node pools (`HEARTH_NODE_POOLS`): which nodes of a cluster have which GPUs, and what pods get there."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controlplane.regions import ANYWHERE, Regions, region_name
from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES, UNSPECIFIED

NODE_POOLS = "node pools"
"""Where sessions of the database know them."""
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kKMGTP]i?)?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?")
RESERVED_PREFIXES = ("kube",)
"""An account called system would get kube-system."""
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?")


def _quantity(value: str) -> str:
    if not QUANTITY.fullmatch(value):
        raise ValueError(f"{value!r} is no quantity, as 8 or 500m or 64Gi is")
    return value


def _accelerator(value: str) -> str:
    if value not in (UNSPECIFIED, *ACCELERATOR_TYPES):
        raise ValueError(f"{value!r} is none of {', '.join(ACCELERATOR_TYPES)}")
    return value


Quantity = Annotated[str, AfterValidator(_quantity)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Toleration(_Part):
    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("has a value, which the operator Exists takes no notice of")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("needs a key, or the operator Exists")
        return self


class NodePool(_Part):
    """Nodes that are alike."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    accelerator_type: Annotated[str, AfterValidator(_accelerator)] = UNSPECIFIED
    """Unset, its engines run on the CPU."""
    resource: Literal["nvidia.com/gpu", "amd.com/gpu"] | None = None
    """What its GPUs are called in a pod's requests."""
    memory_gib: Annotated[int | None, Field(ge=1, le=4096, alias="memoryGiB")] = None
    """Of one GPU."""
    per_node: Annotated[int, Field(ge=1, le=64)] = 8
    """GPUs of one node: the most that one replica can have."""
    cpu: Quantity = "4"
    """Cores of a replica, for each of its GPUs."""
    host_memory: Quantity = "16Gi"
    """Main memory of a replica, for each of its GPUs; without GPUs, the least that it gets."""
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    region: Annotated[str, AfterValidator(region_name)] = ""
    """What deployments call it that are to run there; empty for one that none can ask for."""
    context: str = ""
    """The cluster, as a context of the kubeconfig; empty for the one that the workers run in."""
    price: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """Of an hour of one GPU: of two pools with the same GPUs the cheaper one is taken."""

    @property
    def on_cpu(self) -> bool:
        return self.resource is None

    @model_validator(mode="after")
    def _is_whole(self) -> NodePool:
        wants = (self.accelerator_type != UNSPECIFIED, self.resource is not None, self.memory_gib is not None)
        if len(set(wants)) > 1:
            raise ValueError("acceleratorType, resource and memoryGiB belong together: all of them, or none")
        if self.resource and not self.accelerator_type.startswith(self.resource.split(".")[0].upper()):
            raise ValueError(f"{self.accelerator_type} is not requested as {self.resource}")
        for key, value in self.node_selector.items():
            if not LABEL_VALUE.fullmatch(value):
                raise ValueError(f"nodeSelector {key}: {value!r} is no value of a label")
        return self


class Cache(_Part):
    """Where a node keeps weights."""

    host_path: Annotated[str, Field(pattern=r"^/[^:]*[^/:]$")] | None = None
    """A folder of the node: shared by its pods, and still there when they are gone."""
    empty_dir: Quantity | None = None
    """Room in a folder of each pod's own, which goes with it."""
    limit: Quantity | None = None
    """What weights may take of the node's folder; unset, what its disk has."""

    @model_validator(mode="after")
    def _is_one(self) -> Cache:
        if (self.host_path is None) == (self.empty_dir is None):
            raise ValueError("needs either hostPath or emptyDir")
        if self.limit and self.empty_dir:
            raise ValueError("limit is for a hostPath: an emptyDir has its size")
        return self


class NodePools(_Part):
    """Everything that deployments and fine-tuning jobs on Kubernetes need to be told."""

    image: Annotated[str, Field(min_length=1)]
    """Of the engine: Hearth's workers and vLLM."""
    trainer_image: str = ""
    """Of the trainer: Hearth's workers and what they train with; empty for the same as the engine's."""
    training_pools: tuple[str, ...] = ()
    """The names of the pools that fine-tuning jobs train on; empty for those of the first pool's kind."""
    namespace_prefix: str = "hearth"
    platform_namespace: str = "hearth"
    """Where Hearth's own pods run, which alone may reach engines."""
    cache: Cache = Cache(empty_dir="100Gi")
    quota: dict[str, Quantity] = {}
    """What an account's namespace may use, as a ResourceQuota says it."""
    pools: Annotated[tuple[NodePool, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> NodePools:
        names = [pool.name for pool in self.pools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two pools are called {name}")
        for name in self.training_pools:
            if name not in names:
                raise ValueError(f"trainingPools: there is no pool {name}")
        if not DNS_LABEL.fullmatch(self.namespace_prefix):
            raise ValueError(f"namespacePrefix {self.namespace_prefix!r} is no short DNS label")
        if self.namespace_prefix in RESERVED_PREFIXES:
            raise ValueError(f"namespacePrefix {self.namespace_prefix!r} is the cluster's own")
        if self.platform_namespace.startswith(f"{self.namespace_prefix}-"):
            raise ValueError(
                f"platformNamespace {self.platform_namespace!r} would be an account's: let it not begin with "
                f"{self.namespace_prefix}-"
            )
        return self

    @property
    def regions(self) -> tuple[str, ...]:
        """The names that there are."""
        return tuple(sorted({pool.region for pool in self.pools} - {""}))

    def pools_in(self, regions: Regions) -> tuple[NodePool, ...]:
        return tuple(pool for pool in self.pools if regions.have(pool.region))

    def pools_for(self, accelerator_type: str, regions: Regions = ANYWHERE) -> tuple[NodePool, ...]:
        """Those there with such accelerators, the cheapest first; left open, of the first one's kind."""
        there = self.pools_in(regions)
        kind = there[0].accelerator_type if there and accelerator_type == UNSPECIFIED else accelerator_type
        found = [pool for pool in there if pool.accelerator_type == kind]
        return tuple(sorted(found, key=lambda pool: pool.price))

    def has_gpus(self, accelerator_type: str, regions: Regions = ANYWHERE) -> bool:
        """Whether an engine that asks for this kind runs on GPUs."""
        return any(not pool.on_cpu for pool in self.pools_for(accelerator_type, regions))

    def pools_for_training(self) -> tuple[NodePool, ...]:
        """The cheapest first."""
        if not self.training_pools:
            return self.pools_for(UNSPECIFIED)
        found = [pool for pool in self.pools if pool.name in self.training_pools]
        return tuple(sorted(found, key=lambda pool: pool.price))
