"""Uploads in parts: large files arrive in the object store piece by piece, and go on after any break.

A part may be sent again, and replaces what was sent under its number; some stores keep what was replaced
until the upload ends, and list it too. The object appears when the upload is completed; until then nobody
reads it, and aborting it frees what it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ListPartsOutputTypeDef

MEBIBYTE = 1024 * 1024
MOST_PARTS = 10_000
"""As many as S3 takes."""
USUAL_PART_BYTES = 8 * MEBIBYTE
"""What a lost connection may cost, for each part under way."""
NO_SUCH_UPLOAD = "NoSuchUpload"


@dataclass(frozen=True)
class PartPlan:
    """How a file of `size` bytes is cut: parts of the same size, and a last one with what remains."""

    size: int
    part_size: int

    @classmethod
    def of(cls, size: int, part_size: int = USUAL_PART_BYTES) -> PartPlan:
        """Parts of `part_size`, or of as many whole mebibytes as it takes to stay within S3's number."""
        least = -(-size // MOST_PARTS)
        return cls(size, max(part_size, -(-least // MEBIBYTE) * MEBIBYTE))

    @property
    def count(self) -> int:
        return max(1, -(-self.size // self.part_size))

    def bytes_of(self, number: int) -> int:
        """The size of a part; they are counted from 1."""
        return min(self.part_size, self.size - (number - 1) * self.part_size)

    def missing(self, stored: Mapping[int, StoredPart], first: int = 1) -> Iterator[int]:
        """The numbers, from `first` on, of parts that the store does not have in their full size."""
        for number in range(first, self.count + 1):
            found = stored.get(number)
            if found is None or found.size != self.bytes_of(number):
                yield number


@dataclass(frozen=True)
class StoredPart:
    size: int
    etag: str
    time: datetime


@dataclass(frozen=True)
class UnfinishedUpload:
    key: str
    upload_id: str
    started: datetime


class PartUploads:
    """The part of the object store that knows multipart uploads; keys come checked from `ObjectStore`."""

    def __init__(
        self,
        client: S3Client,
        signing_client: S3Client,
        bucket: str,
        reporting: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._client = client
        self._signing_client = signing_client
        self._bucket = bucket
        self._reporting = reporting

    def start(self, key: str) -> str:
        """The id of a new upload."""
        with self._reporting(f"start an upload of {key}"):
            return self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

    def stored(
        self, key: str, upload_id: str, first: int = 1, chosen: Mapping[str, str] | None = None
    ) -> dict[int, StoredPart] | None:
        """The parts that have arrived, from number `first` on; None when there is no such upload any more.

        Of several under one number it is the one with the `chosen` ETag (by number), or else the newest.
        """
        found: dict[int, StoredPart] = {}
        marker, more = first - 1, True
        while more:
            page = self._page_of_parts(key, upload_id, marker)
            if page is None:
                return None
            for part in page.get("Parts", []):
                number = part["PartNumber"]
                one = StoredPart(part["Size"], part["ETag"].strip('"'), part["LastModified"])
                found[number] = _better(found.get(number, one), one, (chosen or {}).get(str(number)))
            marker, more = page.get("NextPartNumberMarker", 0), page["IsTruncated"]
        return found

    def signed_url(self, key: str, upload_id: str, number: int, size: int, expires: int) -> str:
        """An address that takes one PUT of exactly `size` bytes, as often as need be."""
        parameters = {
            "Bucket": self._bucket,
            "Key": key,
            "UploadId": upload_id,
            "PartNumber": number,
            "ContentLength": size,
        }
        return self._signing_client.generate_presigned_url(
            "upload_part", Params=parameters, ExpiresIn=expires
        )

    def complete(self, key: str, upload_id: str, parts: Mapping[int, StoredPart]) -> None:
        """Make the object of its parts. To do it twice is no error, as long as the store remembers."""
        done: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": part.etag} for number, part in sorted(parts.items())
        ]
        with self._reporting(f"complete the upload of {key}"):
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": done}
            )

    def abort(self, key: str, upload_id: str) -> None:
        """Forget an upload and its parts; one that is not there is no error."""
        with self._reporting(f"abort the upload of {key}"):
            try:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            except ClientError as error:
                if not _is_gone(error):
                    raise

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Every upload under `prefix` that was neither completed nor aborted."""
        with self._reporting(f"list the unfinished uploads under {prefix}"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for found in page.get("Uploads", []):
                    yield UnfinishedUpload(found["Key"], found["UploadId"], found["Initiated"])

    def _page_of_parts(self, key: str, upload_id: str, marker: int) -> ListPartsOutputTypeDef | None:
        with self._reporting(f"list the parts of {key}"):
            try:
                return self._client.list_parts(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumberMarker=marker
                )
            except ClientError as error:
                if not _is_gone(error):
                    raise
        return None


def _better(one: StoredPart, other: StoredPart, chosen: str | None) -> StoredPart:
    if chosen is not None and (one.etag == chosen) != (other.etag == chosen):
        return one if one.etag == chosen else other
    return other if other.time >= one.time else one


def _is_gone(error: ClientError) -> bool:
    return error.response.get("Error", {}).get("Code") == NO_SUCH_UPLOAD
