"""Settings for what runs on a node: the object store and the data directory, and no way to the database."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.config import Settings
from workers.runtimes.cache_uses import LIMIT_VARIABLE

UNUSED_DATABASE = "postgresql://none.invalid/none"
UNUSED_BROKER = "redis://none.invalid/0"
# What a process needs from its surroundings to run at all, and to reach its GPUs.
PASSED_ON = frozenset({"PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE"})
PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "VLLM_", "OMP_", "AWS_CA_BUNDLE", "PYTORCH_")


def node_settings() -> Settings:
    """From the environment of `node_environment`. Engines and trainers never reach Postgres or Redis."""
    return Settings(database_url=UNUSED_DATABASE, redis_url=UNUSED_BROKER)


def node_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine or a trainer. It holds the object store's key, and no other secret."""
    env = {
        name: value
        for name, value in environ.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    if settings.cache_gib:
        env[LIMIT_VARIABLE] = str(settings.cache_gib)
    return env | object_store_environment(settings) | {"HEARTH_DATA_DIR": str(settings.data_dir.absolute())}


def object_store_environment(settings: Settings) -> dict[str, str]:
    """What it takes to reach the object store, key included."""
    return {
        "HEARTH_S3_ENDPOINT": settings.s3_endpoint,
        "HEARTH_S3_ACCESS_KEY": settings.s3_access_key,
        "HEARTH_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "HEARTH_S3_REGION": settings.s3_region,
        "HEARTH_S3_BUCKET": settings.s3_bucket,
    }
