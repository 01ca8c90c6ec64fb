"""Asks a server for its version in the cheapest way: an HTTP library takes longer to load than to answer."""

import json
import socket
import threading
from urllib.parse import urlsplit

WAIT_SECONDS = 1.0
_LARGEST = 65536  # bytes of the answer


def server_version(base_url: str) -> str:
    """The server's version; "" when it does not say within about a second."""
    found: list[str] = []

    def ask() -> None:
        try:
            found.append(_asked(base_url))
        except (OSError, ValueError):
            pass  # whoever asks for a version is told of no outage

    # In a thread of its own, because looking up a name knows no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(WAIT_SECONDS)
    return found[0] if found else ""


def _asked(base_url: str) -> str:
    url = urlsplit(base_url)
    if not url.hostname or url.scheme not in ("http", "https"):
        return ""
    port = url.port or (443 if url.scheme == "https" else 80)
    request = f"GET {url.path.rstrip('/')}/version HTTP/1.0\r\nHost: {url.netloc.rpartition('@')[2]}\r\n\r\n"
    with socket.create_connection((url.hostname, port), WAIT_SECONDS) as plain:
        if url.scheme == "http":
            return _version_in(_exchanged(plain, request))
        import ssl

        context = ssl.create_default_context()
        with context.wrap_socket(plain, server_hostname=url.hostname) as secure:
            return _version_in(_exchanged(secure, request))


def _exchanged(connection: socket.socket, request: str) -> bytes:
    """The whole answer: with HTTP/1.0 it ends with the connection."""
    connection.sendall(request.encode("ascii"))
    answer = b""
    while len(answer) < _LARGEST and (part := connection.recv(4096)):
        answer += part
    return answer


def _version_in(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200" not in head.partition(b"\r\n")[0]:
        return ""
    content = json.loads(body)
    return str(content.get("version") or "") if isinstance(content, dict) else ""
