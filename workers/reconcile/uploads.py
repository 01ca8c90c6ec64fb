"""What the checks of models and datasets share: read the row, check its files, write what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from controlplane.resources.uploads import CHECKING, INVALID, READY
from workers.context import WorkerContext
from workers.reconcile.lease import Lease
from workers.reconcile.leftovers import remove_unregistered

Upload = TypeVar("Upload")
Verdict = dict[str, Any]
"""The values that a row is to have after its check."""


def check_upload(
    context: WorkerContext,
    lease: Lease,
    load: Callable[[Session, Any], Upload],
    check: Callable[[WorkerContext, Upload], Verdict],
    record: Callable[[Session, Any, Verdict], None],
) -> None:
    """Check an upload, once, if somebody asked for it. Findings are written only while the lease holds."""
    with context.db.session() as session:
        row = lease.guard(session)
        upload = load(session, row) if is_asked_for(row) else None
    if upload is not None:
        verdict = check(context, upload)
        with context.db.session() as session:
            row = lease.guard(session)
            record(session, row, verdict)
    if row.state == READY:
        # Only now: until the row takes no more uploads, an object that it does not name may be one that
        # is on its way to be.
        remove_unregistered(context.store, row.prefix, row.files)


def is_asked_for(row: Any) -> bool:
    return bool(row.state != READY and row.reason == CHECKING)


def refused(message: str, code: str = "INVALID_ARGUMENT") -> Verdict:
    return {"reason": INVALID, "status_code": code, "status_message": message}


def give_up_check(row: Any, cause: str) -> bool:
    """The end of an upload that the check itself fails at, whatever is wrong with it."""
    if not is_asked_for(row):
        return False
    for field, value in refused(f"its files could not be checked: {cause}", "INTERNAL").items():
        setattr(row, field, value)
    return True
