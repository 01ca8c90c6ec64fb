"""Where a deployment's replicas are to run: as it is asked for, and as it is stored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import invalid
from controlplane.node_pools import NODE_POOLS, NodePools
from controlplane.regions import ANYWHERE, LONGEST_NAME, UNSPECIFIED, Regions
from controlplane.resources.deployments.enums import MULTI_REGIONS, MultiRegion
from controlplane.resources.tables import DeploymentRow
from controlplane.rest.schema import ApiModel

MOST_REGIONS = 64
NO_REGIONS = "replicas run on this platform's own machines; there are no regions to choose from"
FIXED = "placement of a deployment cannot be changed; make another deployment"

RegionName = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]


class Placement(ApiModel):
    """Where replicas may run: one of the three fields, or anywhere. It stays as the deployment was made."""

    region: RegionName = Field(
        default=UNSPECIFIED, description="In this region, such as US_IOWA_1; the platform says which it has."
    )
    multi_region: MultiRegion = Field(
        default=MULTI_REGIONS[0],
        description="In any region of this part of the world: those whose names begin with US_, EU_ or AP_. "
        "GLOBAL is anywhere.",
    )
    regions: Annotated[list[RegionName], Field(max_length=MOST_REGIONS)] = Field(
        default_factory=list, description="In any of these."
    )

    def stated(self) -> dict[str, Any]:
        """What it says, by snake_case field; an unspecified value says nothing."""
        regions = [region for region in dict.fromkeys(self.regions) if region not in ("", UNSPECIFIED)]
        said = {
            "region": "" if self.region == UNSPECIFIED else self.region,
            "multi_region": "" if self.multi_region == MULTI_REGIONS[0] else self.multi_region,
            "regions": regions,
        }
        return {field: value for field, value in said.items() if value}


def chosen_placement(session: AsyncSession, given: Placement | None) -> dict[str, Any]:
    """The placement of a new deployment as it is stored; 400 for one that cannot be had."""
    stated = given.stated() if given else {}
    if len(stated) > 1:
        fields = " and ".join(map(to_camel, stated))
        raise invalid(
            f"placement says {fields}; let it say one of region, multiRegion and regions", "placement"
        )
    pools: NodePools | None = session.info.get(NODE_POOLS)
    for field in stated:
        check_regions(pools, Regions.of(stated), f"placement.{to_camel(field)}", all_of_them=True)
    return stated


def check_regions(
    pools: NodePools | None, regions: Regions, field: str = "placement", *, all_of_them: bool = False
) -> None:
    """Refuse regions of which the platform has none, or not `all_of_them`."""
    if regions == ANYWHERE:
        return
    if pools is None:
        raise invalid(f"placement is not supported: {NO_REGIONS}", "placement")
    missing = sorted(regions.names.difference(pools.regions)) if all_of_them else []
    if missing or not any(map(regions.have, pools.regions)):
        named = f"are {', '.join(pools.regions)}" if pools.regions else "have no names; leave placement unset"
        wanted = ", ".join(missing) or regions
        raise invalid(f"{field} {wanted} cannot be had: the cluster's regions {named}", field)


def refuse_another_place(row: DeploymentRow, changed: dict[str, Any]) -> None:
    """The placement may be named, as some clients do on every update, if it means the same."""
    if "placement" not in changed:
        return
    stated = changed["placement"].stated() if changed["placement"] else {}
    if len(stated) > 1 or Regions.of(stated) != Regions.of(row.placement):
        raise invalid(FIXED, "placement")
