"""Files of a good model and a good adapter, and a place in the object store to upload them to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping

import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from tests.validation.crafted import (
    ADAPTER_CONFIG,
    CONFIG,
    TEMPLATE,
    adapter_tensors,
    base_tensors,
    safetensors,
)


@pytest.fixture(scope="session")
def object_store(platform_services: Services) -> ObjectStore:
    """One bucket for all checks: they need no database, and every upload has a folder of its own."""
    store = ObjectStore.from_settings(
        Settings(
            database_url=platform_services.postgres.url,
            redis_url=platform_services.valkey.url,
            s3_endpoint=platform_services.seaweedfs.endpoint,
            s3_access_key=platform_services.seaweedfs.access_key,
            s3_secret_key=platform_services.seaweedfs.secret_key,
            s3_bucket="validation",
        )
    )
    store.ensure_bucket()
    return store


@pytest.fixture
def base_files() -> dict[str, bytes]:
    """A good base model's files."""
    vocabulary = {"model": {"type": "BPE", "vocab": {chr(97 + i): i for i in range(10)}, "merges": []}}
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(base_tensors()),
        "tokenizer.json": json.dumps(vocabulary).encode(),
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE, "bos_token": "<s>"}).encode(),
        "README.md": b"# A model\n",
    }


@pytest.fixture
def adapter_files() -> dict[str, bytes]:
    """A good adapter's files, for the model of `base_files`."""
    return {
        "adapter_config.json": json.dumps(ADAPTER_CONFIG).encode(),
        "adapter_model.safetensors": safetensors(adapter_tensors()),
        "fireworks.json": json.dumps(
            {"conversation_config": {"style": "jinja", "args": {"template": TEMPLATE}}}
        ).encode(),
    }


@pytest.fixture
def upload(object_store: ObjectStore) -> Callable[[Mapping[str, bytes]], str]:
    """Puts files into a folder of their own and returns its prefix."""

    def put(files: Mapping[str, bytes]) -> str:
        prefix = f"accounts/test/models/{uuid.uuid4()}/"
        for name, content in files.items():
            object_store.put_bytes(prefix + name, content)
        return prefix

    return put
