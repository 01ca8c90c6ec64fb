"""The quotas that exist, and what the platform allows unless it is configured otherwise (`HEARTH_QUOTAS`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES, UNSPECIFIED

MODELS = "models"
DATASETS = "datasets"
DEPLOYED_ADDONS = "deployed-addons"
RUNNING_JOBS = "running-fine-tuning-jobs"
MONTHLY_SPEND = "monthly-spend-usd"
REQUESTS_A_MINUTE = "serverless-inference-rpm"
PROMPT_TOKENS_A_MINUTE = "serverless-inference-prompt-tpm"
GENERATED_TOKENS_A_MINUTE = "serverless-inference-generated-tpm"
STORED_RESPONSES = "stored-responses"
STORED_RESPONSE_BYTES = "stored-response-bytes"
LARGEST = 2**63 - 1


class Allowance(BaseModel):
    """A quota's value, and the most that the account's admin may set it to."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    value: Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
    max_value: Annotated[int, Field(strict=True, ge=0, le=LARGEST)]

    @model_validator(mode="after")
    def ordered(self) -> Allowance:
        if self.value > self.max_value:
            raise ValueError(f"value {self.value} is more than maxValue {self.max_value}")
        return self


def allow(value: int, max_value: int | None = None) -> Allowance:
    return Allowance(value=value, max_value=value if max_value is None else max_value)


def short_name(accelerator_type: str) -> str:
    """`NVIDIA_H100_80GB` is `h100`, as in the original's ids; the A100 with less memory says so."""
    if accelerator_type == UNSPECIFIED:
        return "gpu"
    _, chip, memory = accelerator_type.lower().split("_")
    return f"{chip}-{memory}" if (chip, memory) == ("a100", "40gb") else chip


def accelerator_quota(accelerator_type: str) -> str:
    """The id of the quota of GPUs, of all regions together: `h100-count`."""
    return f"{short_name(accelerator_type)}-count"


DEFAULTS: Mapping[str, Allowance] = {
    MODELS: allow(10_000, 1_000_000),
    DATASETS: allow(10_000, 1_000_000),
    DEPLOYED_ADDONS: allow(1_000, 100_000),
    # More are queued, not refused.
    RUNNING_JOBS: allow(1_000, 100_000),
    # The original's way of saying "unlimited".
    MONTHLY_SPEND: allow(9_999_999),
    REQUESTS_A_MINUTE: allow(6_000, 600_000),
    PROMPT_TOKENS_A_MINUTE: allow(6_000_000, 600_000_000),
    GENERATED_TOKENS_A_MINUTE: allow(600_000, 60_000_000),
    STORED_RESPONSES: allow(100_000, 10_000_000),
    STORED_RESPONSE_BYTES: allow(10_000_000_000, 1_000_000_000_000),
    **{accelerator_quota(kind): allow(1_000) for kind in (*ACCELERATOR_TYPES, UNSPECIFIED)},
}


def _whole(sent: object) -> object:
    """A bare number is the value and the most it may be."""
    if isinstance(sent, int) and not isinstance(sent, bool):
        return {"value": sent, "maxValue": sent}
    if isinstance(sent, dict) and sent.keys() == {"value"}:
        return {**sent, "maxValue": sent["value"]}
    return sent


Setting = Annotated[Allowance, BeforeValidator(_whole)]


def check_ids(quotas: dict[str, Allowance]) -> dict[str, Allowance]:
    for quota_id in quotas:
        if quota_id not in DEFAULTS:
            raise ValueError(f"{quota_id!r} is no quota; quotas are {', '.join(DEFAULTS)}")
    return quotas


Quotas = Annotated[dict[str, Setting], AfterValidator(check_ids)]


def allowances(configured: Mapping[str, Allowance] | None) -> dict[str, Allowance]:
    """The platform's quotas: the defaults, and what is configured."""
    return {**DEFAULTS, **(configured or {})}
