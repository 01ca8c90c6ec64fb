"""Making datasets READY: every row of an upload is checked, and what was found is recorded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy.orm import Session

from controlplane.resources.datasets.schemas import TRANSFORMED
from controlplane.resources.tables import DatasetRow
from controlplane.resources.uploads import READY
from controlplane.storage import ObjectNotFound
from workers.context import WorkerContext
from workers.reconcile.lease import Lease
from workers.reconcile.splitting import write_parts
from workers.reconcile.uploads import Verdict, check_upload, give_up_check, refused
from workers.reconcile.visit import visit
from workers.validation.datasets import DatasetReport, Format, merge_reports, validate_dataset

NO_REPORT: dict[str, Any] = {"bad_row_count": 0, "bad_rows": []}


@dataclass(frozen=True)
class Upload:
    prefix: str
    files: dict[str, Any]
    format: Format | None
    copied_from: str = ""
    """The prefix of the dataset that this one is a copy of; empty for every other."""
    example_count: int | None = None
    """How many rows it was made to have, where that is known beforehand."""


def reconcile_dataset(context: WorkerContext, uid: uuid.UUID) -> None:
    """Check a dataset's upload, or cut it into parts, when that is asked for."""
    visit(context, DatasetRow, uid, check_dataset, give_up_check)


def check_dataset(context: WorkerContext, lease: Lease) -> timedelta | None:
    check_upload(context, lease, load_upload, check, record, complain)
    write_parts(context, lease)
    with context.db.session() as session:
        row = lease.guard(session)
        if row.state == READY:  # whatever kept its parts waiting is over
            row.status_message = ""
    return None


def load_upload(session: Session, row: DatasetRow) -> Upload:
    wanted = None if row.format == "FORMAT_UNSPECIFIED" else cast(Format, row.format)
    if not row.source:
        return Upload(row.prefix, row.files, wanted)
    source = session.get(DatasetRow, row.source_uid) if row.source_uid else None
    copied_from = source.prefix if source is not None and row.source["kind"] == TRANSFORMED else ""
    return Upload(row.prefix, row.files, wanted, copied_from, row.example_count)


def record(session: Session, row: DatasetRow, verdict: Verdict) -> None:
    for field, value in verdict.items():
        setattr(row, field, value)


def check(context: WorkerContext, upload: Upload) -> Verdict:
    reports: dict[str, DatasetReport] = {}
    for name in sorted(upload.files):
        try:
            reports[name] = check_file(context, upload, name, next(iter(reports.values()), None))
        except ObjectNotFound:
            return without_report(f"file {name} was registered but not uploaded")
        except Different as error:
            return without_report(f"file {name} {error}")
    merged = merge_reports(reports) if len(reports) > 1 else next(iter(reports.values()))
    files = {name: {"size": report.bytes, "sha256": report.sha256} for name, report in reports.items()}
    if not merged.ok:
        return {**refused(merged.first_problem()), "report": merged.to_dict()}
    if upload.example_count not in (None, merged.example_count):
        return without_report(f"it has {merged.example_count} rows, and was to have {upload.example_count}")
    return accepted(merged, files)


class Different(Exception):
    """A file is not the one that is expected; the text goes on from its name."""


def check_file(
    context: WorkerContext, upload: Upload, name: str, first: DatasetReport | None
) -> DatasetReport:
    """The report of one file; `first` is that of the dataset's first file, whose format is everybody's."""
    if upload.copied_from:
        context.store.copy(upload.copied_from + name, upload.prefix + name)
    chunks = context.store.open_stream(upload.prefix + name)
    report = validate_dataset(chunks, upload.format or (first.format if first else None))
    size, checksum = upload.files[name]["size"], upload.files[name]["sha256"]
    if report.bytes != size:
        raise Different(f"has {report.bytes} bytes, and {size} were registered")
    if checksum and report.sha256 != checksum:
        raise Different("is not what it was when its dataset was checked")
    return report


def complain(file: str, reason: str) -> Verdict:
    return without_report(f"file {file}: {reason}")


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
