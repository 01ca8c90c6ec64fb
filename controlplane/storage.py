"""The object store: weights, datasets, adapters and checkpoints, over S3 (path style, signature v4).

One `ObjectStore` is shared by all threads of a process. It is synchronous: asynchronous callers run it in a
thread. Every failure is an `ObjectNotFound` or a `StorageUnavailable`; nothing of boto3 leaks out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from controlplane.config import Settings
from controlplane.part_uploads import PartUploads

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

READ_CHUNK_BYTES = 1024 * 1024
PART_BYTES = 16 * 1024 * 1024
"""S3 takes 10,000 parts at most, so a stream may hold 156 GiB."""
STREAM_RESUMES = 3
DELETE_BATCH = 1000
THERE_ALREADY_CODES = frozenset({"412", "PreconditionFailed"})
MISSING_OBJECT_CODES = frozenset({"404", "NoSuchKey", "NotFound"})


class StorageError(Exception):
    """Base of what the object store raises."""


class ObjectNotFound(StorageError):
    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} does not exist")
        self.key = key


class StorageUnavailable(StorageError):
    """The object store cannot be reached, or refused; the message says which. Worth another try later."""


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size: int
    etag: str
    modified: datetime


class ObjectStore:
    def __init__(self, client: S3Client, signing_client: S3Client, bucket: str, endpoint: str) -> None:
        self._client = client
        self._signing_client = signing_client
        self._bucket = bucket
        self._endpoint = endpoint
        self.parts = PartUploads(client, signing_client, bucket, self._reporting)
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A store for the settings' bucket; URLs are signed for the address that clients reach."""
        return cls(
            _s3_client(settings, settings.s3_endpoint),
            _s3_client(settings, settings.signing_endpoint),
            settings.s3_bucket,
            settings.s3_endpoint,
        )

    def ensure_bucket(self) -> None:
        """Make the bucket when it is not there; two callers at once are fine."""
        with self._reporting(f"look up bucket {self._bucket}"):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _error_code(error) not in {"404", "NoSuchBucket", "NotFound"}:
                    raise
                self._create_bucket()

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._reporting(f"write {key}"):
            self._client.put_object(Bucket=self._bucket, Key=_checked(key), Body=data)

    def create_bytes(self, key: str, data: bytes) -> bool:
        """Write an object that is not there yet; of several writers at once one gets True."""
        with self._reporting(f"write {key}"):
            try:
                self._client.put_object(Bucket=self._bucket, Key=_checked(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _error_code(error) not in THERE_ALREADY_CODES:
                    raise
                return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file; a large one goes up in parts, so it appears whole or not at all."""
        with self._reporting(f"write {key}"):
            self._client.upload_file(str(path), self._bucket, _checked(key), Config=self._transfer)

    def put_stream(self, key: str, source: BinaryIO) -> int:
        """Upload what `source` still holds, one part in memory at a time; returns the number of bytes.

        The object appears when the last part has arrived: a source that fails leaves nothing behind.
        """
        first = _read_part(source)
        if len(first) < PART_BYTES:
            self.put_bytes(key, first)
            return len(first)
        with self._reporting(f"write {key}"):
            return self._put_parts(_checked(key), _parts(first, source))

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, without its bytes passing through here."""
        with self._reporting(f"copy {source}", source):
            place: CopySourceTypeDef = {"Bucket": self._bucket, "Key": _checked(source)}
            self._client.copy(place, self._bucket, _checked(target))

    def get_bytes(self, key: str) -> bytes:
        with self._reporting(f"read {key}", key):
            return self._client.get_object(Bucket=self._bucket, Key=_checked(key))["Body"].read()

    def get_file(self, key: str, path: Path) -> None:
        """Download to `path`, which appears only when the download is whole."""
        with self._reporting(f"read {key}", key):
            self._client.download_file(self._bucket, _checked(key), str(path), Config=self._transfer)

    def open_stream(self, key: str) -> Iterator[bytes]:
        """The object in chunks of a mebibyte. A missing object raises here, not at the first chunk.

        A connection lost half-way is picked up where it stopped, as long as the object is still the same.
        """
        with self._reporting(f"read {key}", key):
            response = self._client.get_object(Bucket=self._bucket, Key=_checked(key))
        return self._stream(key, response["Body"], response["ContentLength"], response["ETag"])

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on; fewer, or none, where the object ends before."""
        if start < 0 or length < 0:
            raise ValueError(f"a range must not be negative: start {start}, length {length}")
        if length == 0:
            return b""
        with self._reporting(f"read {key}", key):
            try:
                response = self._client.get_object(
                    Bucket=self._bucket, Key=_checked(key), Range=f"bytes={start}-{start + length - 1}"
                )
            except ClientError as error:
                if _error_code(error) in {"416", "InvalidRange"}:
                    return b""
                raise
            return response["Body"].read(length)

    def head(self, key: str) -> ObjectInfo | None:
        with self._reporting(f"look up {key}"):
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=_checked(key))
            except ClientError as error:
                if _error_code(error) in MISSING_OBJECT_CODES:
                    return None
                raise
        return ObjectInfo(key, found["ContentLength"], found["ETag"].strip('"'), found["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in key order."""
        with self._reporting(f"list {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for found in page.get("Contents", []):
                    etag = found["ETag"].strip('"')
                    yield ObjectInfo(found["Key"], found["Size"], etag, found["LastModified"])

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        with self._reporting(f"delete {key}"):
            self._client.delete_object(Bucket=self._bucket, Key=_checked(key))

    def delete_prefix(self, prefix: str) -> int:
        """Delete everything under a folder; returns how many objects went.

        The prefix must end with "/" and hold at least two levels, so that no slip empties an account.
        """
        if not prefix.endswith("/") or len(_checked(prefix.rstrip("/")).split("/")) < 2:
            raise ValueError(f"{prefix!r} is too wide to delete")
        deleted = 0
        for batch in _batches((found.key for found in self.list(prefix)), DELETE_BATCH):
            self._delete_batch(prefix, batch)
            deleted += len(batch)
        return deleted

    def signed_put_url(self, key: str, size: int, expires: int = 3600) -> str:
        """An address that takes one PUT of exactly `size` bytes; other headers are free, they are not signed.

        The length is part of the signature, so a body of another size is refused by the store.
        """
        parameters = {"Bucket": self._bucket, "Key": _checked(key), "ContentLength": size}
        return self._signing_client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=expires)

    def signed_get_url(self, key: str, filename: str | None = None, expires: int = 3600) -> str:
        """An address to download from; `filename` is what a browser saves it as."""
        parameters = {"Bucket": self._bucket, "Key": _checked(key)}
        if filename is not None:
            parameters["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(filename, '')}"
        return self._signing_client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=expires)

    def _create_bucket(self) -> None:
        try:
            self._client.create_bucket(Bucket=self._bucket)
        except ClientError as error:
            if _error_code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    def _put_parts(self, key: str, parts: Iterable[bytes]) -> int:
        upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        size = 0
        done: list[CompletedPartTypeDef] = []
        try:
            for number, part in enumerate(parts, start=1):
                answer = self._client.upload_part(
                    Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=number, Body=part
                )
                done.append({"ETag": answer["ETag"], "PartNumber": number})
                size += len(part)
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done}
            )
        except BaseException:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
            raise
        return size

    def _stream(self, key: str, body: Any, size: int, etag: str) -> Iterator[bytes]:
        offset = resumes = 0
        while offset < size:
            try:
                chunk = body.read(READ_CHUNK_BYTES)
                if not chunk:
                    raise StorageUnavailable(f"{key} ended after {offset} of {size} bytes")
            except (BotoCoreError, StorageUnavailable):
                resumes += 1
                if resumes > STREAM_RESUMES:
                    raise StorageUnavailable(
                        f"reading {key} broke off after {offset} of {size} bytes"
                    ) from None
                body = self._reopen(key, offset, etag)
                continue
            offset += len(chunk)
            yield chunk

    def _reopen(self, key: str, offset: int, etag: str) -> Any:
        with self._reporting(f"read {key}", key):
            return self._client.get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={offset}-", IfMatch=etag
            )["Body"]

    def _delete_batch(self, prefix: str, keys: Sequence[str]) -> None:
        with self._reporting(f"delete {prefix}"):
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        for failure in answer.get("Errors", []):
            raise StorageUnavailable(
                f"cannot delete {failure.get('Key')}: {failure.get('Code')} {failure.get('Message')}"
            )

    @contextmanager
    def _reporting(self, action: str, key: str = "") -> Iterator[None]:
        """Turn boto3's errors into ours. With `key`, a missing object is `ObjectNotFound`."""
        try:
            yield
        except ClientError as error:
            if key and _error_code(error) in MISSING_OBJECT_CODES:
                raise ObjectNotFound(key) from None
            raise StorageUnavailable(self._refusal(action, error)) from error
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise StorageUnavailable(f"cannot {action}: no answer from {self._endpoint}") from error
        except (BotoCoreError, Boto3Error) as error:
            raise StorageUnavailable(f"cannot {action} at {self._endpoint}: {error}") from error

    def _refusal(self, action: str, error: ClientError) -> str:
        code = _error_code(error)
        if code == "NoSuchBucket":
            return f"cannot {action}: bucket {self._bucket} does not exist at {self._endpoint}"
        message = error.response.get("Error", {}).get("Message", "")
        return f"cannot {action}: {self._endpoint} answered {code} {message}".rstrip()


@cache
def _session() -> boto3.session.Session:
    """One for all clients: each session reads boto3's descriptions of S3 anew, which takes a while."""
    return boto3.session.Session()


def _s3_client(settings: Settings, endpoint: str) -> S3Client:
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=3,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        # Newer optional checksums are unknown to some stores, and would become part of signed URLs.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # A session of its own: the default one is shared by the process and not safe to use from threads.
    return _session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
        region_name=settings.s3_region,
        config=config,
    )


def _checked(key: str) -> str:
    """Refuse keys that a store could read as a path to somewhere else."""
    if any(part in {"", ".", ".."} for part in key.split("/")) or not key.isprintable():
        raise ValueError(f"{key!r} is no object key")
    return key


def _error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _read_part(source: BinaryIO) -> bytes:
    """A whole part, however little the source gives at a time; shorter only at its end."""
    pieces: list[bytes] = []
    missing = PART_BYTES
    while missing and (piece := source.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _parts(first: bytes, source: BinaryIO) -> Iterator[bytes]:
    part = first
    while part:
        yield part
        part = _read_part(source)


def _batches(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for key in keys:
        batch.append(key)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
