"""What the checks of models and datasets share: read the row, check its files, write what was found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from controlplane.resources.tables import GarbageRow
from controlplane.resources.uploads import CHECKING, INCOMING, INVALID, READY
from controlplane.storage import ObjectNotFound, ObjectStore, StorageError
from workers.context import WorkerContext
from workers.reconcile.lease import Lease
from workers.reconcile.leftovers import remove_unregistered

log = logging.getLogger(__name__)

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
        incoming = [name for name, file in row.files.items() if file.get("incoming")]
    if upload is not None:
        take_in(context.store, row.prefix, incoming)
        verdict = check(context, upload)
        with context.db.session() as session:
            row = lease.guard(session)
            record(session, row, verdict)
            if row.state == READY and incoming:
                # Emptied now, and again once the last signed URL has expired.
                session.add(GarbageRow(prefix=row.prefix + INCOMING))
        if row.state != READY:
            throw_out(context.store, row.prefix, incoming)
    if row.state == READY:
        # Only now: until the row takes no more uploads, an object that it does not name may be one that
        # is on its way to be.
        remove_unregistered(context.store, row.prefix, row.files)


def take_in(store: ObjectStore, prefix: str, names: Sequence[str]) -> None:
    """Copy what was uploaded to where no signed URL writes: what is checked is what stays."""
    for name in names:
        try:
            store.copy(prefix + INCOMING + name, prefix + name)
        except ObjectNotFound:
            store.delete(prefix + name)  # a copy from an earlier try is not this upload's file


def throw_out(store: ObjectStore, prefix: str, names: Sequence[str]) -> None:
    """Delete the copies of a refused upload; the uploads themselves stay, to be checked again."""
    try:
        for name in names:
            store.delete(prefix + name)
    except StorageError as error:  # they are overwritten by the next try, or go with the resource
        log.warning("copies of a refused upload stay under %s for now: %s", prefix, error)


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
