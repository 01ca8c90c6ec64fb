"""The object store against a real S3 server."""

from __future__ import annotations

import hashlib
import io
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from controlplane.config import Settings
from controlplane.storage import PART_BYTES, ObjectNotFound, ObjectStore, StorageUnavailable

LARGE = PART_BYTES * 2 + 5
MISSING = "accounts/test/none"


@pytest.fixture
def prefix() -> str:
    return f"accounts/test/{uuid.uuid4()}/"


def elsewhere(**changes: Any) -> ObjectStore:
    """A store with settings of its own, for what should fail."""
    given = {
        "database_url": "postgresql://nowhere",
        "redis_url": "redis://nowhere",
        "s3_endpoint": "http://127.0.0.1:1",
        "s3_access_key": "key",
        "s3_secret_key": SecretStr("secret"),
    }
    return ObjectStore.from_settings(Settings(**{**given, **changes}))


def test_bytes_come_back_as_they_went(object_store: ObjectStore, prefix: str) -> None:
    object_store.put_bytes(prefix + "a", b"hello")
    assert object_store.get_bytes(prefix + "a") == b"hello"
    found = object_store.head(prefix + "a")
    assert found is not None
    assert (found.key, found.size) == (prefix + "a", 5)


def test_what_is_only_to_be_created_leaves_alone_what_is_there(
    object_store: ObjectStore, prefix: str
) -> None:
    assert object_store.create_bytes(prefix + "a", b"first")
    assert not object_store.create_bytes(prefix + "a", b"second")
    assert object_store.get_bytes(prefix + "a") == b"first"


def test_an_empty_object_is_an_object(object_store: ObjectStore, prefix: str) -> None:
    object_store.put_bytes(prefix + "empty", b"")
    assert object_store.get_bytes(prefix + "empty") == b""
    assert list(object_store.open_stream(prefix + "empty")) == []


def test_ranges_end_where_the_object_ends(object_store: ObjectStore, prefix: str) -> None:
    object_store.put_bytes(prefix + "a", b"0123456789")
    assert object_store.read_range(prefix + "a", 2, 3) == b"234"
    assert object_store.read_range(prefix + "a", 8, 100) == b"89"
    assert object_store.read_range(prefix + "a", 10, 5) == b""
    assert object_store.read_range(prefix + "a", 3, 0) == b""


def test_a_large_stream_goes_up_in_parts_and_comes_down_in_chunks(
    object_store: ObjectStore, prefix: str
) -> None:
    content = bytes(range(256)) * (LARGE // 256 + 1)
    assert object_store.put_stream(prefix + "large", Trickle(content)) == len(content)
    digest = hashlib.sha256()
    for chunk in object_store.open_stream(prefix + "large"):
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256(content).digest()


def test_a_stream_that_fails_leaves_nothing(object_store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ConnectionResetError):
        object_store.put_stream(prefix + "broken", Trickle(bytes(PART_BYTES * 2), fails_at_end=True))
    assert object_store.head(prefix + "broken") is None


def test_files_go_up_and_come_down(object_store: ObjectStore, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"x" * LARGE)
    object_store.put_file(prefix + "file", tmp_path / "up")
    object_store.get_file(prefix + "file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


def test_what_is_missing_is_named(object_store: ObjectStore, tmp_path: Path) -> None:
    for read in (
        object_store.get_bytes,
        object_store.open_stream,
        lambda key: object_store.read_range(key, 0, 1),
        lambda key: object_store.get_file(key, tmp_path / "none"),
    ):
        with pytest.raises(ObjectNotFound, match=MISSING):
            read(MISSING)
    assert object_store.head(MISSING) is None
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_is_listed_and_deleted_and_its_neighbour_stays(
    object_store: ObjectStore, prefix: str
) -> None:
    neighbour = prefix.rstrip("/") + "-neighbour/a"
    names = [f"{prefix}{number:04}" for number in range(30)]
    for key in [*names, neighbour]:
        object_store.put_bytes(key, b"x")
    assert [found.key for found in object_store.list(prefix)] == names
    assert object_store.delete_prefix(prefix) == 30
    assert list(object_store.list(prefix)) == []
    assert object_store.head(neighbour) is not None
    object_store.delete(neighbour)
    object_store.delete(neighbour)
    assert object_store.head(neighbour) is None


@pytest.mark.parametrize("wide", ["", "/", "accounts", "accounts/", "accounts/a", "accounts//", "../a/b/"])
def test_no_slip_empties_an_account(object_store: ObjectStore, wide: str) -> None:
    with pytest.raises(ValueError):
        object_store.delete_prefix(wide)


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "a//b", "a/./b", "a\n", "a\x00b"])
def test_keys_that_are_paths_to_elsewhere_are_refused(object_store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError):
        object_store.put_bytes(key, b"x")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "application/octet-stream", "x-goog-content-length-range": "5,5"}],
)
def test_a_signed_address_takes_a_plain_put(
    object_store: ObjectStore, prefix: str, headers: dict[str, str]
) -> None:
    url = object_store.signed_put_url(prefix + "put", 5)
    assert httpx.put(url, content=b"12345", headers=headers).status_code == 200
    assert object_store.get_bytes(prefix + "put") == b"12345"


@pytest.mark.parametrize("body", [b"", b"1234", b"123456"])
def test_a_signed_address_refuses_another_size(object_store: ObjectStore, prefix: str, body: bytes) -> None:
    assert httpx.put(object_store.signed_put_url(prefix + "put", 5), content=body).status_code == 403
    assert object_store.head(prefix + "put") is None


def test_a_signed_address_is_for_one_key(object_store: ObjectStore, prefix: str) -> None:
    url = object_store.signed_put_url(prefix + "mine", 5)
    assert httpx.put(url.replace("/mine", "/yours"), content=b"12345").status_code == 403


def test_a_signed_download_names_its_file(object_store: ObjectStore, prefix: str) -> None:
    object_store.put_bytes(prefix + "a", b"hello")
    answer = httpx.get(object_store.signed_get_url(prefix + "a", 'a "b"\r\nX: é.bin'))
    assert answer.content == b"hello"
    assert answer.headers["content-disposition"] == (
        "attachment; filename*=UTF-8''a%20%22b%22%0D%0AX%3A%20%C3%A9.bin"
    )


def test_signed_addresses_are_for_the_endpoint_that_clients_reach() -> None:
    store = elsewhere(s3_public_endpoint="https://files.example.com")
    assert store.signed_put_url("a/b", 1).startswith("https://files.example.com/hearth/a/b?")
    assert store.signed_get_url("a/b").startswith("https://files.example.com/hearth/a/b?")


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    store = elsewhere()
    (tmp_path / "file").write_bytes(b"x")
    for call in (
        store.ensure_bucket,
        lambda: store.get_bytes("a/b"),
        lambda: store.put_bytes("a/b", b"x"),
        lambda: store.put_file("a/b", tmp_path / "file"),
        lambda: list(store.list("a/")),
        lambda: store.head("a/b"),
        lambda: store.delete("a/b"),
    ):
        with pytest.raises(StorageUnavailable, match=r"cannot .*: no answer from http://127\.0\.0\.1:1"):
            call()


def test_a_broken_download_goes_on_where_it_stopped(flaky_server: str) -> None:
    content = b"".join(elsewhere(s3_endpoint=flaky_server).open_stream("a/b"))
    assert content == FlakyObject.content


def test_many_threads_share_a_store(object_store: ObjectStore, prefix: str) -> None:
    def round_trip(number: int) -> bool:
        key = f"{prefix}{number}"
        object_store.put_bytes(key, str(number).encode())
        return object_store.get_bytes(key) == str(number).encode()

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(round_trip, range(64)))


class Trickle(io.RawIOBase):
    """A source that gives less than was asked for, as sockets do."""

    def __init__(self, content: bytes, fails_at_end: bool = False) -> None:
        super().__init__()
        self._content = io.BytesIO(content)
        self._fails_at_end = fails_at_end

    def read(self, size: int = -1) -> bytes:
        piece = self._content.read(min(size, 700_000))
        if not piece and self._fails_at_end:
            raise ConnectionResetError("the client went away")
        return piece


class FlakyObject(BaseHTTPRequestHandler):
    """An object whose first download breaks off in the middle."""

    content = bytes(range(256)) * 20_000
    broken = False

    def do_GET(self) -> None:
        begin = (
            int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        )
        body = self.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        if not FlakyObject.broken:
            FlakyObject.broken = True
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def flaky_server() -> Iterator[str]:
    FlakyObject.broken = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), FlakyObject)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
