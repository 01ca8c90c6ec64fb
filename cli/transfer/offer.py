"""What a server offers for download: signed URLs, sizes and checksums, by file name."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from cli.errors import CliError
from cli.transfer.retries import Address


class Offer:
    """The answer of `getDownloadEndpoint`; asked for again when the storage says that its URLs are old."""

    def __init__(self, fetch: Callable[[], Mapping[str, Any]]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._answer = fetch()

    def names(self) -> list[str]:
        return sorted(self._map("filenameToSignedUrls"))

    def urls(self) -> list[str]:
        return [str(url) for url in self._map("filenameToSignedUrls").values()]

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when the server does not tell."""
        size = self._map("filenameToSize").get(name)
        return None if size is None else int(size)

    def sha256(self, name: str) -> str:
        """Empty when the server does not tell."""
        return str(self._map("filenameToSha256").get(name) or "")

    @property
    def total(self) -> int | None:
        sizes = [self.size(name) for name in self.names()]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def address(self, name: str) -> Address:
        with self._lock:
            return Address(self._url(name), lambda old: self._renewed(name, old))

    def _renewed(self, name: str, old: str) -> str:
        with self._lock:
            if self._url(name) == old:
                self._answer = self._fetch()
            return self._url(name)

    def _url(self, name: str) -> str:
        url = self._map("filenameToSignedUrls").get(name)
        if not url:
            raise CliError(f"the server gave no address for {name}")
        return str(url)

    def _map(self, field: str) -> Mapping[str, Any]:
        found = self._answer.get(field)
        return found if isinstance(found, Mapping) else {}
