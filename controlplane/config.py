"""Settings of every Hearth process, read from `HEARTH_*` environment variables and checked at start."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from controlplane.names import check_id


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


HttpUrl = Annotated[str, AfterValidator(_http_url)]
ResourceId = Annotated[str, AfterValidator(lambda value: check_id(value, "id"))]


class Settings(BaseSettings):
    """What a process needs to know about its surroundings. Field `x` is read from `HEARTH_X`."""

    model_config = SettingsConfigDict(env_prefix="HEARTH_", extra="ignore")

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

    data_dir: Path = Path(".hearth")
    """Node-local folder for caches (`cache/`), process folders (`run/`) and logs (`logs/`)."""

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

    request_body_limit: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Bytes of a JSON body on the control plane."""
    dataset_upload_limit: int = Field(default=150_000_000, ge=1024)
    """Bytes of a dataset sent through `:upload`; larger ones go through a signed URL."""
    verdict_wait_seconds: float = Field(default=30.0, ge=0, le=600)
    """How long an upload's request waits for the worker's verdict before it answers."""
    replica_host: str = "127.0.0.1"
    engine_kv_cache_gib: int = Field(default=1, ge=1)
    max_trainers: int = Field(default=1, ge=1)
    """Fine-tuning jobs that train at the same time; the others wait as PENDING."""
    max_lora_rank: Literal[8, 16, 32, 64] = 64

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
