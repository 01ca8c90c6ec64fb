"""Regions: what they are called, and in which of them a deployment may run. Pure.

Which ones there are is said by the node pools. A name begins with its part of the world: `US_IOWA_1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNSPECIFIED = "REGION_UNSPECIFIED"
GLOBAL = "GLOBAL"
PREFIXES = {GLOBAL: "", "US": "US_", "EUROPE": "EU_", "APAC": "AP_"}
"""How the names of a multi-region's regions begin. What is in no part of the world is only in GLOBAL."""
NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
LONGEST_NAME = 60


def region_name(value: str) -> str:
    """The name of a region, or an empty one."""
    if value and (not NAME.fullmatch(value) or value == UNSPECIFIED or len(value) > LONGEST_NAME):
        raise ValueError(
            f"{value!r} is no name of a region, as US_IOWA_1 is: capital letters and digits with underscores "
            f"between them, {LONGEST_NAME} at most"
        )
    return value


@dataclass(frozen=True)
class Regions:
    """Where the replicas of a deployment may run."""

    names: frozenset[str] = frozenset()
    """Empty for all that the multi-region has."""
    multi_region: str = GLOBAL

    @classmethod
    def of(cls, placement: Mapping[str, Any] | None) -> Regions:
        """From a deployment's stored placement; without one, anywhere."""
        said = placement or {}
        one = [said["region"]] if "region" in said else []
        return cls(frozenset([*one, *said.get("regions", ())]), said.get("multi_region", GLOBAL))

    def have(self, region: str) -> bool:
        """Nodes whose region has no name are only anywhere."""
        return (not self.names or region in self.names) and region.startswith(PREFIXES[self.multi_region])

    def __str__(self) -> str:
        return " or ".join(sorted(self.names)) or self.multi_region


ANYWHERE = Regions()
