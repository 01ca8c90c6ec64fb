"""What earlier, replaced uploads left behind."""

from __future__ import annotations

import logging
from collections.abc import Container

from controlplane.storage import ObjectStore, StorageError

log = logging.getLogger(__name__)


def remove_unregistered(store: ObjectStore, prefix: str, registered: Container[str]) -> None:
    """Delete the objects under `prefix` that no registered file names."""
    try:
        for found in list(store.list(prefix)):
            if found.key.removeprefix(prefix) not in registered:
                store.delete(found.key)
    except StorageError as error:  # they go with the resource at the latest
        log.warning("what earlier uploads left under %s stays for now: %s", prefix, error)
