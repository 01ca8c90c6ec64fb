from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from controlplane.resources.quotas.catalog import LARGEST
from controlplane.resources.quotas.limits import Limit
from controlplane.rest.schema import ApiModel, Int64, Timestamp, output_only


class Quota(ApiModel):
    name: str = output_only("")
    value: Annotated[Int64, Field(ge=0, le=LARGEST)] = 0
    max_value: Annotated[Int64, Field(ge=0, le=LARGEST)] = 0
    usage: float = output_only(0.0)
    update_time: Timestamp | None = output_only()

    @classmethod
    def of(cls, limit: Limit, usage: float) -> Self:
        return cls(
            name=limit.name,
            value=limit.value,
            max_value=limit.max_value,
            usage=usage,
            update_time=limit.update_time,
        )
