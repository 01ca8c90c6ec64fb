"""The HTTP client of object storage. The API key never goes there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.connection.client import trust_for

if TYPE_CHECKING:
    import httpx


def storage_client(urls: Sequence[str]) -> "httpx.Client":
    import httpx

    timeout = httpx.Timeout(60.0, connect=10.0, read=120.0, pool=None)
    # Unencoded, whatever the storage would like: sizes and ranges are those of the file.
    return httpx.Client(timeout=timeout, verify=trust_for(urls), headers={"Accept-Encoding": "identity"})
