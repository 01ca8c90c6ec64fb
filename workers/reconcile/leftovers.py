"""What earlier, replaced uploads left behind."""

from __future__ import annotations

from collections.abc import Container

from controlplane.storage import ObjectStore


def remove_unregistered(store: ObjectStore, prefix: str, registered: Container[str]) -> None:
    """Delete the objects under `prefix` that no registered file names."""
    for found in list(store.list(prefix)):
        if found.key.removeprefix(prefix) not in registered:
            store.delete(found.key)
