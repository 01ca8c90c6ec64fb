"""Settings of every Hearth process, read from `HEARTH_*` environment variables and checked at start."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from controlplane.json_settings import reader
from controlplane.names import check_id
from controlplane.node_pools import NodePools
from controlplane.prices import Prices
from controlplane.resources.quotas.catalog import Allowance, Quotas


def _database_url(value: str) -> str:
    """Accept the usual spellings and name the one driver that Hearth uses."""
    for prefix in ("postgresql+psycopg://", "postgresql://", "postgres://"):
        if value.startswith(prefix):
            return "postgresql+psycopg://" + value.removeprefix(prefix)
    raise ValueError("must start with postgresql://")


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    return value


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/")


def split_keys(text: str) -> list[str]:
    """The keys of a list that commas, spaces or lines separate."""
    return [key for key in re.split(r"[,\s]+", text) if key]


def _secret_keys(value: SecretStr | None) -> SecretStr | None:
    keys = split_keys(value.get_secret_value()) if value else []
    for number, key in enumerate(keys, start=1):
        if not _is_fernet_key(key):
            raise ValueError(
                f"key {number} of {len(keys)} is not 32 random bytes in URL-safe base64; "
                "`hearth admin create-secret-key` makes one"
            )
    return value if keys else None


def _is_fernet_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode(), altchars=b"-_", validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _issuers(value: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Exact issuer URLs, separated by commas or spaces."""
    listed = tuple(split_keys(value)) if isinstance(value, str) else value
    for url in listed or ():
        _http_url(url)
    return listed or None


HttpUrl = Annotated[str, AfterValidator(_http_url)]
ResourceId = Annotated[str, AfterValidator(lambda value: check_id(value, "id"))]


class Settings(BaseSettings):
    """What a process needs to know about its surroundings. Field `x` is read from `HEARTH_X`."""

    model_config = SettingsConfigDict(env_prefix="HEARTH_", extra="ignore", hide_input_in_errors=True)

    database_url: Annotated[str, AfterValidator(_database_url)]
    redis_url: Annotated[str, AfterValidator(_redis_url)]
    database_pool_size: int = Field(default=10, ge=1, le=200)

    s3_endpoint: HttpUrl
    s3_public_endpoint: HttpUrl | None = None
    """The address that clients reach the object store at; signed URLs are made for it."""
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_region: str = "us-east-1"
    s3_bucket: str = "hearth"

    secret_keys: Annotated[SecretStr | None, AfterValidator(_secret_keys)] = None
    """Keys that stored secrets are encrypted with: the first encrypts, all of them decrypt."""

    trusted_issuers: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_issuers)] = None
    """Identity providers that may be reached without TLS or at private addresses."""

    data_dir: Path = Path(".hearth")
    """Node-local folder for caches (`cache/`), process folders (`run/`) and logs (`logs/`)."""

    cache_gib: float | None = Field(default=None, gt=0, le=1_000_000)
    """What the weights in this machine's cache may take of its disk; unset, what the disk has."""

    account_id: ResourceId = "hearth"
    """The first account, made by `hearth up` and `hearth admin bootstrap`."""
    admin_email: str = "admin@localhost"
    platform_account: ResourceId = "fireworks"

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8601, ge=1, le=65535)
    api_url: HttpUrl | None = None
    """Where the gateway forwards control-plane paths; unset when an ingress does that."""
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8600, ge=1, le=65535)
    drain_seconds: int = Field(default=5, ge=0, le=86_400)
    """How long requests in flight get when the api or the gateway is told to stop."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where this part serves its metrics and its health to whoever watches it, without a key."""
    log_format: Literal["text", "json"] = "text"

    request_body_limit: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Bytes of a JSON body on the control plane."""
    request_body_seconds: float = Field(default=30.0, gt=0, le=3600)
    """How long a JSON body may take to arrive; how long an upload may pause."""
    dataset_upload_limit: int = Field(default=150_000_000, ge=1024)
    """Bytes of a dataset sent through `:upload`; larger ones go through a signed URL."""
    list_timeout_seconds: float = Field(default=10.0, gt=0, le=300)
    """How long the database may work on one list before it is refused."""
    page_token_key: SecretStr | None = None
    """Signs page tokens; every api process needs the same. Unset, it is derived from the S3 secret."""
    audit_log_days: int = Field(default=400, ge=1, le=36500)
    """How long lines of the audit log are kept."""
    upload_days: int = Field(default=7, ge=1, le=365)
    """How long the parts of an upload are kept that nobody finishes."""
    response_days: int = Field(default=30, ge=1, le=3650)
    """How long stored responses are kept."""
    unused_deployment_days: int = Field(default=7, ge=0, le=36500)
    """After so long at zero without a request a deployment is deleted; 0 keeps it."""
    shortest_window_to_zero_seconds: float = Field(default=300.0, ge=1, le=3600)
    """The shortest `scaleToZeroWindow` that a deployment may have."""
    verdict_wait_seconds: float = Field(default=30.0, ge=0, le=600)
    """How long an upload's request waits for the worker's verdict before it answers."""
    replica_host: str = "127.0.0.1"
    engine_kv_cache_gib: int = Field(default=1, ge=1)
    wandb_base_url: HttpUrl = "https://api.wandb.ai"
    """The Weights & Biases server that jobs log to, when they ask for it."""
    wandb_mode: Literal["online", "offline"] = "online"
    """Offline nothing is sent: what would be stays in a folder of the trainer's."""
    max_trainers: int = Field(default=1, ge=1)
    """Fine-tuning jobs that train at the same time; the others wait as PENDING."""
    checkpoint_seconds: float = Field(default=60.0, ge=1, le=86_400)
    """How much training at most is done again when a trainer is lost."""
    inspection_memory_gib: int = Field(default=8, ge=2)
    """What each process of an inspection may take of the worker's address space."""
    max_lora_rank: Literal[8, 16, 32, 64] = 64

    quotas: Annotated[dict[str, Allowance] | None, NoDecode, BeforeValidator(reader(Quotas))] = None
    """What accounts may use, by the quota's id: JSON, or the path of a file; the rest as in the catalogue."""
    node_pools: Annotated[NodePools | None, NoDecode, BeforeValidator(reader(NodePools))] = None
    """The node pools of Kubernetes: JSON, or the path of a JSON or YAML file. Set, replicas run there."""
    prices: Annotated[Prices | None, NoDecode, BeforeValidator(reader(Prices))] = None
    """The price list: JSON, or the path of a file. Unset, nothing costs anything."""

    @property
    def page_token_secret(self) -> bytes:
        """The key that page tokens are signed with.

        The S3 secret is what all api processes of one platform have in common and nobody else knows. What
        is made of it here, for this one purpose, tells nothing about it.
        """
        source = self.page_token_key or self.s3_secret_key
        return hmac.digest(source.get_secret_value().encode(), b"hearth page tokens", "sha256")

    @property
    def signing_endpoint(self) -> str:
        return self.s3_public_endpoint or self.s3_endpoint


def load_settings() -> Settings:
    """Read the settings, or print one line for each mistake and exit with status 2."""
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "HEARTH_" + "_".join(str(part) for part in problem["loc"]).upper()
            what = (
                "is not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
            )
            sys.stderr.write(f"hearth: {name}: {what}\n")
        raise SystemExit(2) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    return load_settings()
