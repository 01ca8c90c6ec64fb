"""Which accelerators a deployment may ask for: what the cluster's node pools have, or else this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.errors import ApiError, invalid
from controlplane.regions import ANYWHERE, Regions

if TYPE_CHECKING:
    from controlplane.node_pools import NodePool, NodePools

ACCELERATOR_TYPES = (
    "NVIDIA_A100_80GB",
    "NVIDIA_H100_80GB",
    "AMD_MI300X_192GB",
    "NVIDIA_A10G_24GB",
    "NVIDIA_A100_40GB",
    "NVIDIA_L4_24GB",
    "NVIDIA_H200_141GB",
    "NVIDIA_B200_180GB",
    "AMD_MI325X_256GB",
    "AMD_MI350X_288GB",
    "NVIDIA_B300_288GB",
)
UNSPECIFIED = "ACCELERATOR_TYPE_UNSPECIFIED"

# The driver's own account of its devices: there with the driver, without a tool to ask.
NVIDIA_DEVICES = Path("/proc/driver/nvidia/gpus")


def check_accelerators(kind: str, count: int, devices: list[str]) -> None:
    """Refuse, by name, accelerators that this machine does not have. `devices` are its GPUs' model names."""
    wanted = kind if kind != UNSPECIFIED else f"{count} GPUs" if count else ""
    if not wanted:
        return
    if not devices:
        raise invalid(
            f"{wanted} cannot be had: this machine has no GPU, and models run on its CPU; "
            "leave acceleratorType and acceleratorCount unset",
            "acceleratorType" if kind != UNSPECIFIED else "acceleratorCount",
        )
    if kind != UNSPECIFIED and not any(_is_a(device, kind) for device in devices):
        raise invalid(f"{kind} cannot be had: this machine has {', '.join(devices)}", "acceleratorType")
    if count > len(devices):
        raise invalid(
            f"acceleratorCount is {count}, and this machine has {len(devices)} GPUs", "acceleratorCount"
        )


def check_pools(kind: str, count: int, pools: NodePools, regions: Regions = ANYWHERE) -> None:
    """Refuse, by name, accelerators that no node pool there has."""
    found = pools.pools_for(kind, regions)
    if not found:
        raise _not_there(kind, pools, regions)
    most = max(0 if pool.on_cpu else pool.per_node for pool in found)
    if count > most:
        there = "" if regions == ANYWHERE else f" in {regions}"
        raise invalid(
            f"acceleratorCount is {count}, and a replica can have {most} GPUs at most{there}",
            "acceleratorCount",
        )


def _not_there(kind: str, pools: NodePools, regions: Regions) -> ApiError:
    elsewhere = pools.pools_for(kind)
    if not elsewhere:
        return invalid(
            f"{kind} cannot be had: the cluster has {_kinds(pools.pools) or 'none'}", "acceleratorType"
        )
    here = _kinds(pools.pools_in(regions)) or "no GPUs"
    named = sorted({pool.region for pool in elsewhere} - {""})
    there = f"in {', '.join(named)}" if named else "where its regions have no names: leave placement unset"
    said = f"the cluster has {here} there, and {kind} {there}"
    return invalid(f"{kind} cannot be had in {regions}: {said}", "acceleratorType")


def _kinds(pools: Iterable[NodePool]) -> str:
    return ", ".join(sorted({pool.accelerator_type for pool in pools} - {UNSPECIFIED}))


def local_devices(root: Path = NVIDIA_DEVICES) -> list[str]:
    """The model names of this machine's GPUs; empty when it has none."""
    found = (re.search(r"^Model:\s*(.+)$", file.read_text(), re.M) for file in root.glob("*/information"))
    return [match.group(1).strip() for match in found if match]


def _is_a(device: str, kind: str) -> bool:
    """`NVIDIA H100 80GB HBM3` is an NVIDIA_H100_80GB; not every driver tells the memory."""
    maker, chip, memory = kind.split("_")
    name = device.upper()
    told = re.search(r"(\d+)\s*GB", name)
    return (
        maker in name and chip in re.split(r"[\s-]+", name) and (not told or memory == f"{told.group(1)}GB")
    )
