"""The one HTTP client of the API."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

from cli import __version__
from cli.connection.profile import Connection
from cli.errors import ApiError, CliError, DryRun, Unreachable, api_error
from cli.language.hidden import without_keys

if TYPE_CHECKING:
    import ssl

    import httpx

    from cli.connection.signed_in import SignedIn

# A model may think for long before its first word, and may have to be woken up first.
ANSWER_SECONDS = 600.0
# The server may hold a request up to 30 s (a verdict on an upload); beyond twice that it is not coming.
TIMEOUT_SECONDS = 75.0
_RETRIES = 3
BACKOFF_SECONDS = 0.5  # before the second attempt; it doubles
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ApiClient:
    """Requests to the API as one user. Paths are resource names: `accounts/a/models/m`."""

    def __init__(
        self,
        connection: Connection,
        *,
        dry_run: bool = False,
        trace: TextIO | None = None,
        access: "SignedIn | None" = None,
    ) -> None:
        self.connection = connection
        self.dry_run = dry_run
        self._trace = trace
        self._access = access

    def get(self, name: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.call("GET", name, query=query)

    def look(self, name: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A Get that also happens in a dry run: it serves to build the request that is shown."""
        return self._send("GET", name, query=query)

    def pages(self, name: str, key: str, query: Mapping[str, Any]) -> Iterator[tuple[list[Any], str]]:
        """Pages of a list, each with the token of the next ("" at the end)."""
        query = dict(query)
        while True:
            page = self.get(name, query)
            token = str(page.get("nextPageToken") or "")
            yield page.get(key) or [], token
            if not token or token == query.get("pageToken"):
                return
            query["pageToken"] = token

    def call(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        then: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One request and its JSON answer. `then` tells a dry run what would follow."""
        if self.dry_run:
            raise DryRun(self._described(method, name, query, body, then))
        return self._send(method, name, query=query, body=body)

    def upload(self, name: str, field: str, filename: str, stream: Any) -> dict[str, Any]:
        """A multipart upload of one file, streamed."""
        if self.dry_run:
            size = stream.seek(0, os.SEEK_END)
            raise DryRun(self._described("POST", name, None, None, {"upload": {filename: size}}))
        return self._send("POST", name, files={field: (filename, stream, "application/jsonl")})

    def ask(self, name: str, body: Any) -> dict[str, Any]:
        """The answer to a POST that may take a model's time."""
        with self.opened(name, body) as response, self.failures_told():
            response.read()
        answer = _json(response)
        if not isinstance(answer, dict):
            raise self._not_ours(response)
        return answer

    @contextmanager
    def opened(self, name: str, body: Any) -> "Iterator[httpx.Response]":
        """The answer to a POST, to be read as it comes. It is asked for once, and a refusal is raised."""
        if self.dry_run:
            raise DryRun(self._described("POST", name, None, body, None))
        path = f"/v1/{name}"
        response = self._open(path, body, self._credential())
        if response.status_code == 401 and self._access is not None:
            response.close()
            refused = str(response.request.headers["Authorization"])
            response = self._open(path, body, self._credential(refused=refused))
        try:
            if response.status_code >= 400:
                raise self._refusal(response, path)
            yield response
        finally:
            response.close()

    def _open(self, path: str, body: Any, headers: dict[str, str]) -> "httpx.Response":
        import httpx

        with self.failures_told():
            timeout = httpx.Timeout(ANSWER_SECONDS, connect=10.0)
            request = self._http.build_request("POST", path, json=body, headers=headers, timeout=timeout)
            started = time.monotonic()
            response = self._http.send(request, stream=True)
        self._note(f"POST {request.url} -> {response.status_code}", started)
        return response

    def _refusal(self, response: "httpx.Response", path: str) -> CliError:
        with self.failures_told():
            response.read()
        error = self._told(response, path)
        later = response.headers.get("retry-after", "")
        if later.isdigit():
            error.advice.append(f"the server asks to try again in {later} s")
        return error

    def key_headers(self) -> Mapping[str, str]:
        """The headers of `verifyApiKey`: they name the account that the key belongs to."""
        response = self._exchange("GET", "/verifyApiKey", {})
        if response.status_code >= 400:
            raise api_error(response.status_code, _json(response), "/verifyApiKey")
        return dict(response.headers)

    def _send(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        files: Any = None,
    ) -> dict[str, Any]:
        path = f"/v1/{name}"
        content = {"params": _query(query), "json": body, "files": files}
        response = self._exchange(method, path, {k: v for k, v in content.items() if v})
        answer = _json(response)
        if response.status_code >= 400:
            raise self._told(response, path)
        if not isinstance(answer, dict):
            raise self._not_ours(response)
        return answer

    def _exchange(self, method: str, path: str, content: dict[str, Any]) -> "httpx.Response":
        """Sends once; again when the server asked to come later, or was away during a read."""
        attempts = 1 if "files" in content else _RETRIES + 1
        for attempt in range(attempts):
            response = self._ask(method, path, content)
            if not _come_again(method, response.status_code) or attempt == attempts - 1:
                return response
            time.sleep(_pause(response.headers.get("retry-after"), attempt))
        raise AssertionError("the loop returns")

    def _ask(self, method: str, path: str, content: dict[str, Any]) -> "httpx.Response":
        """One request; a second one when an access token turns out to be good no more."""
        headers = self._credential()
        response = self._ask_once(method, path, headers, content)
        if response.status_code == 401 and self._access is not None and "files" not in content:
            response = self._ask_once(
                method, path, self._credential(refused=headers["Authorization"]), content
            )
        return response

    def _ask_once(
        self, method: str, path: str, headers: dict[str, str], content: dict[str, Any]
    ) -> "httpx.Response":
        with self.failures_told():
            started = time.monotonic()
            response = self._http.request(method, path, headers=headers, **content)
        self._note(f"{method} {response.request.url} -> {response.status_code}", started)
        return response

    def _credential(self, refused: str = "") -> dict[str, str]:
        """The header that says who is asking; with `refused`, another one than that."""
        key = self.connection.api_key
        if self._access is not None:
            key = self._access.token(refused=refused.removeprefix("Bearer "))
        return {"Authorization": f"Bearer {_checked_key(key)}"} if key else {}

    @contextmanager
    def failures_told(self) -> Iterator[None]:
        import httpx

        base_url = self.connection.base_url
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise CliError(
                f'"{base_url}" is not an address of a server: {error}',
                advice=["export FIREWORKS_BASE_URL=http://HOST:PORT"],
            ) from None
        except httpx.TimeoutException:
            raise Unreachable(base_url, "it did not answer in time") from None
        except httpx.RequestError as error:
            raise Unreachable(base_url, str(error) or type(error).__name__) from None

    @cached_property
    def _http(self) -> "httpx.Client":
        import httpx

        try:
            host = urlsplit(self.connection.base_url).hostname
        except ValueError as error:
            raise httpx.InvalidURL(str(error)) from None
        headers = {"User-Agent": f"firectl/{installed_version()}"}
        return httpx.Client(
            base_url=self.connection.base_url,
            headers=headers,
            verify=trust_for([self.connection.base_url]),
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=10.0),
            # A proxy is for the world outside: a server on this machine is never behind it.
            trust_env=host not in _LOOPBACK,
        )

    def _told(self, response: "httpx.Response", path: str) -> CliError:
        """The failure that an answer stands for. A proxy whose server is away answers with a page."""
        answer = _json(response)
        if answer is None and response.status_code < 500:
            return self._not_ours(response)
        return api_error(response.status_code, answer, path)

    def _not_ours(self, response: "httpx.Response") -> CliError:
        return CliError(
            f"{self.connection.base_url} answered {response.status_code} with something that is not JSON",
            advice=["check FIREWORKS_BASE_URL (or --base-url): it should be a Hearth server's address"],
        )

    def _described(
        self,
        method: str,
        name: str,
        query: Mapping[str, Any] | None,
        body: Any,
        then: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        parts = {"query": dict(query or {}), "body": without_keys(body), **(then or {})}
        shown = {key: value for key, value in parts.items() if value not in (None, {})}
        return {"method": method, "url": f"{self.connection.base_url}/v1/{name}", **shown}

    def _note(self, line: str, started: float) -> None:
        if self._trace is not None:
            self._trace.write(f"[debug] {line} in {time.monotonic() - started:.2f} s\n")


def trust_for(urls: Iterable[str]) -> "ssl.SSLContext | bool":
    """What to verify servers with.

    Reading the certificate authorities takes 0.1 s, which plain HTTP can spare; without them a TLS connection
    is refused, not trusted.
    """
    import ssl

    if any(urlsplit(url).scheme == "https" for url in urls):
        return True
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def installed_version() -> str:
    return __version__


def is_outage(error: CliError) -> bool:
    """Whether it is worth asking again soon: no answer, or the answer of a server that is starting."""
    return isinstance(error, Unreachable) or (
        isinstance(error, ApiError) and (error.status >= 500 or error.status == 429)
    )


def _come_again(method: str, status: int) -> bool:
    """Whether the same request may be sent again: it was turned away, or it was a read that met an outage."""
    return status == 429 or (method == "GET" and status in (502, 503, 504))


def _checked_key(key: str) -> str:
    if not key.isascii() or not key.isprintable():
        raise CliError("the API key holds characters that no key has", advice=["firectl set-api-key KEY"])
    return key


def _query(query: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: _query_value(value) for key, value in (query or {}).items() if value not in (None, "")}


def _query_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json(response: "httpx.Response") -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _pause(retry_after: str | None, attempt: int) -> float:
    """Seconds to wait: what the server asks for, within 30 s, else the usual pause."""
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), 30.0)
    return float(BACKOFF_SECONDS * 2**attempt)
