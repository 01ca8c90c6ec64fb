from __future__ import annotations

from typing import Self

from controlplane.prices import NANOS
from controlplane.rest.schema import ApiModel, Int64, Timestamp, output_only


class Money(ApiModel):
    """google.type.Money: whole units, and billionths of one with the same sign."""

    currency_code: str = output_only("USD")
    units: Int64 = output_only(0)
    nanos: int = output_only(0)

    @classmethod
    def of(cls, cost_nanos: int) -> Self:
        return cls(units=cost_nanos // NANOS, nanos=cost_nanos % NANOS)


class LineItem(ApiModel):
    """What the use of one thing comes to."""

    category: str = output_only("")
    """What `quantity` counts."""
    grouping_key: str = output_only("")
    grouping_value: str = output_only("")
    quantity: float = output_only(0.0)
    series: str = output_only("USAGE_TYPE_UNSPECIFIED")
    total_cost: Money | None = output_only()


class UsageBucket(ApiModel):
    start_time: Timestamp | None = output_only()
    end_time: Timestamp | None = output_only()
    line_items: list[LineItem] = output_only([])


class BillingSummary(ApiModel):
    line_items: list[LineItem] = output_only([])
    usage_buckets: list[UsageBucket] = output_only([])
    total_cost: Money | None = output_only()


class UsageRow(ApiModel):
    """What was used in one day, and a group of what was asked for."""

    start_time: Timestamp | None = output_only()
    end_time: Timestamp | None = output_only()
    usage_type: str = output_only("USAGE_TYPE_UNSPECIFIED")
    group: dict[str, str] = output_only({})
    total_cost: Money | None = output_only()


class TokenUsage(UsageRow):
    model_name: str = output_only("")
    api_key_id: str = output_only("")
    request_count: Int64 = output_only(0)
    prompt_tokens: Int64 = output_only(0)
    cached_prompt_tokens: Int64 = output_only(0)
    completion_tokens: Int64 = output_only(0)


class DeploymentUsage(UsageRow):
    deployment_id: str = output_only("")
    base_model: str = output_only("")
    accelerator_type: str = output_only("")
    accelerator_seconds: Int64 = output_only(0)
    reserved_accelerator_seconds: Int64 = output_only(0)
    replica_seconds: Int64 = output_only(0)


class TrainingUsage(UsageRow):
    job_id: str = output_only("")
    job_type: str = output_only("")
    base_model: str = output_only("")
    tokens: Int64 = output_only(0)


class ServedUsage(ApiModel):
    """What others used of a deployment: how much, and neither who nor for how much."""

    start_time: Timestamp | None = output_only()
    end_time: Timestamp | None = output_only()
    deployment_id: str = output_only("")
    model_name: str = output_only("")
    request_count: Int64 = output_only(0)
    prompt_tokens: Int64 = output_only(0)
    cached_prompt_tokens: Int64 = output_only(0)
    completion_tokens: Int64 = output_only(0)


class BillingUsage(ApiModel):
    serverless_costs: list[TokenUsage] = output_only([])
    dedicated_costs: list[DeploymentUsage] = output_only([])
    dedicated_tokens: list[TokenUsage] = output_only([])
    training_costs: list[TrainingUsage] = output_only([])
    served_to_others: list[ServedUsage] = output_only([])


class LedgerPoint(ApiModel):
    timestamp: Timestamp | None = output_only()
    value: float = output_only(0.0)


class DeploymentLedger(ApiModel):
    ledger: list[LedgerPoint] = output_only([])
