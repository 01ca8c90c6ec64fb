"""Making datasets READY: every row of an upload is checked, and what was found is recorded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy.orm import Session

from controlplane.resources.tables import DatasetRow
from controlplane.resources.uploads import READY
from controlplane.storage import ObjectNotFound
from workers.context import WorkerContext
from workers.reconcile.lease import Lease
from workers.reconcile.uploads import Verdict, check_upload, give_up_check, refused
from workers.reconcile.visit import visit
from workers.validation.datasets import DatasetReport, Format, merge_reports, validate_dataset

NO_REPORT: dict[str, Any] = {"bad_row_count": 0, "bad_rows": []}


@dataclass(frozen=True)
class Upload:
    prefix: str
    sizes: dict[str, int]
    format: Format | None


def reconcile_dataset(context: WorkerContext, uid: uuid.UUID) -> None:
    """Check a dataset's upload, when that is asked for."""
    visit(context, DatasetRow, uid, check_dataset, give_up_check)


def check_dataset(context: WorkerContext, lease: Lease) -> timedelta | None:
    check_upload(context, lease, load_upload, check, record)
    return None


def load_upload(session: Session, row: DatasetRow) -> Upload:
    sizes = {name: file["size"] for name, file in row.files.items()}
    wanted = None if row.format == "FORMAT_UNSPECIFIED" else cast(Format, row.format)
    return Upload(row.prefix, sizes, wanted)


def record(session: Session, row: DatasetRow, verdict: Verdict) -> None:
    for field, value in verdict.items():
        setattr(row, field, value)


def check(context: WorkerContext, upload: Upload) -> Verdict:
    reports: dict[str, DatasetReport] = {}
    for name, size in sorted(upload.sizes.items()):
        try:
            chunks = context.store.open_stream(upload.prefix + name)
        except ObjectNotFound:
            return without_report(f"file {name} was registered but not uploaded")
        first = next(iter(reports.values()), None)
        reports[name] = validate_dataset(chunks, upload.format or (first.format if first else None))
        if reports[name].bytes != size:
            return without_report(f"file {name} has {reports[name].bytes} bytes, and {size} were registered")
    merged = merge_reports(reports) if len(reports) > 1 else next(iter(reports.values()))
    files = {name: {"size": report.bytes, "sha256": report.sha256} for name, report in reports.items()}
    if not merged.ok:
        return {**refused(merged.first_problem()), "report": merged.to_dict()}
    return accepted(merged, files)


def without_report(message: str) -> Verdict:
    """A refusal before any row was looked at: what an earlier check reported is gone."""
    return {**refused(message), "report": NO_REPORT}


def accepted(report: DatasetReport, files: dict[str, Any]) -> Verdict:
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
