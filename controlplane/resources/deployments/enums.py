"""The enums, and a bound, that deployments and their shapes have in common."""

from __future__ import annotations

from typing import Annotated

from controlplane.regions import PREFIXES
from controlplane.resources.deployments.accelerators import ACCELERATOR_TYPES, UNSPECIFIED
from controlplane.rest.schema import OneOf

MOST_GUESSES = 8
"""Tokens guessed at a time. A grammar follows each of them, on the time that its answer is allowed."""
PRECISIONS = (
    "PRECISION_UNSPECIFIED",
    "FP16",
    "FP8",
    "FP8_MM",
    "FP8_AR",
    "FP8_MM_KV_ATTN",
    "FP8_KV",
    "FP8_MM_V2",
    "FP8_V2",
    "FP8_MM_KV_ATTN_V2",
    "NF4",
    "FP4",
    "BF16",
    "FP4_BLOCKSCALED_MM",
    "FP4_MX_MOE",
)
DIRECT_ROUTE_TYPES = (
    "DIRECT_ROUTE_TYPE_UNSPECIFIED",
    "INTERNET",
    "GCP_PRIVATE_SERVICE_CONNECT",
    "AWS_PRIVATELINK",
)
BUCKET_TYPES = ("BUCKET_TYPE_UNSPECIFIED", "MINIO", "S3", "NEBIUS", "FW_HOSTED")
MULTI_REGIONS = ("MULTI_REGION_UNSPECIFIED", *PREFIXES)
PRESET_TYPES = (
    "PRESET_TYPE_UNSPECIFIED",
    "MINIMAL",
    "FAST",
    "THROUGHPUT",
    "FULL_PRECISION",
    "AGENTIC_CODING",
    "CHAT",
    "SUMMARIZATION",
)

AcceleratorType = Annotated[str, OneOf(UNSPECIFIED, *ACCELERATOR_TYPES)]
Precision = Annotated[str, OneOf(*PRECISIONS)]
DirectRouteType = Annotated[str, OneOf(*DIRECT_ROUTE_TYPES)]
BucketType = Annotated[str, OneOf(*BUCKET_TYPES)]
MultiRegion = Annotated[str, OneOf(*MULTI_REGIONS)]
PresetType = Annotated[str, OneOf(*PRESET_TYPES)]
