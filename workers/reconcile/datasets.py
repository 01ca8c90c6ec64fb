"""Making datasets READY: every row of an upload is checked, and what was found is recorded."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from controlplane.resources.tables import DatasetRow
from controlplane.resources.uploads import CHECKING, INVALID, READY
from controlplane.storage import ObjectNotFound, StorageUnavailable
from workers.context import WorkerContext
from workers.reconcile.lease import LeaseLost, claim_lease, kept_alive
from workers.reconcile.leftovers import remove_unregistered
from workers.validation.datasets import DatasetReport, Format, merge_reports, validate_dataset

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
RETRY_AFTER = timedelta(seconds=5)


@dataclass(frozen=True)
class Upload:
    name: str
    prefix: str
    sizes: dict[str, int]
    format: Format | None


def reconcile_dataset(context: WorkerContext, uid: uuid.UUID) -> None:
    """Check a dataset's upload, once. Findings are written only while the lease holds."""
    lease = claim_lease(context.db, DatasetRow, uid, LEASE)
    if lease is None:
        return
    try:
        upload = load_upload(context, uid)
        if upload is not None:
            with kept_alive(context.db, lease):
                verdict = check(context, upload)
                remove_unregistered(context.store, upload.prefix, upload.sizes)
            with context.db.session() as session:
                row = lease.guard(session)
                for field, value in verdict.items():
                    setattr(row, field, value)
        with context.db.session() as session:
            lease.release(session, None)
    except StorageUnavailable as error:
        log.warning("dataset %s cannot be checked now: %s", uid, error)
        with context.db.session() as session:
            lease.guard(session).status_message = "waiting for the object store to check its files"
            lease.release(session, RETRY_AFTER)
    except LeaseLost:
        log.warning("the check of dataset %s outlived its lease; another worker has it", uid)


def load_upload(context: WorkerContext, uid: uuid.UUID) -> Upload | None:
    with context.db.session() as session:
        row = session.get(DatasetRow, uid)
        if row is None or row.state == READY or row.reason != CHECKING:
            return None
        sizes = {name: file["size"] for name, file in row.files.items()}
        wanted = None if row.format == "FORMAT_UNSPECIFIED" else cast(Format, row.format)
        return Upload(row.name, row.prefix, sizes, wanted)


def check(context: WorkerContext, upload: Upload) -> dict[str, Any]:
    """The values that the row is to have after the check."""
    reports: dict[str, DatasetReport] = {}
    for name, size in sorted(upload.sizes.items()):
        try:
            chunks = context.store.open_stream(upload.prefix + name)
        except ObjectNotFound:
            return refused(f"file {name} was registered but not uploaded")
        first = next(iter(reports.values()), None)
        reports[name] = validate_dataset(chunks, upload.format or (first.format if first else None))
        if reports[name].bytes != size:
            return refused(f"file {name} has {reports[name].bytes} bytes, and {size} were registered")
    merged = merge_reports(reports) if len(reports) > 1 else next(iter(reports.values()))
    files = {name: {"size": report.bytes, "sha256": report.sha256} for name, report in reports.items()}
    if not merged.ok:
        return {**refused(merged.first_problem()), "report": merged.to_dict()}
    return accepted(merged, files)


def refused(message: str) -> dict[str, Any]:
    return {
        "reason": INVALID,
        "status_code": "INVALID_ARGUMENT",
        "status_message": message,
        "report": {"bad_row_count": 0, "bad_rows": []},
    }


def accepted(report: DatasetReport, files: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": READY,
        "reason": "",
        "status_code": "OK",
        "status_message": "",
        "files": files,
        "format": report.format,
        "example_count": report.example_count,
        "estimated_token_count": report.estimated_token_count,
        "average_turn_count": report.average_turn_count,
        "report": report.to_dict(),
    }
