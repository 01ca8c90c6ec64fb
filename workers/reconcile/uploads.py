"""What the checks of models and datasets share: read the row, check its files, write what was found."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from controlplane.part_uploads import USUAL_PART_BYTES, PartPlan
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


Complain = Callable[[str, str], Verdict]
"""The refusal for what is wrong with a whole file, by its name and the reason."""


def check_upload(
    context: WorkerContext,
    lease: Lease,
    load: Callable[[Session, Any], Upload],
    check: Callable[[WorkerContext, Upload], Verdict],
    record: Callable[[Session, Any, Verdict], None],
    complain: Complain,
) -> None:
    """Check an upload, once, if somebody asked for it. Findings are written only while the lease holds."""
    with context.db.session() as session:
        row = lease.guard(session)
        upload = load(session, row) if is_asked_for(row) else None
        incoming = {name: file for name, file in row.files.items() if is_to_come(file)}
    if upload is not None:
        try:
            take_in(context.store, row.prefix, incoming)
            verdict = check(context, upload)
            refuse_others(verdict.get("files") or small_files(context.store, row, incoming), incoming)
        except Unfit as unfit:
            verdict = complain(unfit.file, unfit.reason) | {"status_code": "FAILED_PRECONDITION"}
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


class Unfit(Exception):
    """A file is not, or not yet, what was to arrive: the upload can go on."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


GONE = "the job threw its checkpoint away for a later one before this was copied; promote a later one"


def take_in(store: ObjectStore, prefix: str, incoming: Mapping[str, Any]) -> None:
    """Copy what was uploaded to where no signed URL writes: what is checked is what stays."""
    for name, file in incoming.items():
        if "upload" in file:
            put_together(store, prefix + INCOMING + name, name, file)
    for name, file in incoming.items():
        try:
            store.copy(file.get("copied_from") or prefix + INCOMING + name, prefix + name)
        except ObjectNotFound:
            if "copied_from" not in file:
                store.delete(prefix + name)  # a copy from an earlier try is not this upload's file
            elif store.head(prefix + name) is None:
                raise Unfit(name, GONE) from None


def is_to_come(file: Mapping[str, Any]) -> bool:
    """Whether a file is still elsewhere: where it was uploaded to, or where another resource has it."""
    return bool(file.get("incoming") or file.get("copied_from"))


def put_together(store: ObjectStore, key: str, name: str, file: Mapping[str, Any]) -> None:
    """Make the object of a file's parts; one whose upload is gone was made by an earlier try, or never is."""
    stored = store.parts.stored(key, file["upload"], chosen=file.get("etags"))
    if stored is None:
        return
    plan = PartPlan(file["size"], file["part_size"])
    missing = list(plan.missing(stored))
    if missing:
        raise Unfit(
            name,
            f"{len(missing)} of its {plan.count} parts did not arrive; upload on, and have it checked again",
        )
    store.parts.complete(key, file["upload"], {number: stored[number] for number in range(1, plan.count + 1)})


def refuse_others(arrived: Mapping[str, Mapping[str, Any]], incoming: Mapping[str, Any]) -> None:
    """Raises `Unfit` for a file that is another one than its owner announced.

    What a check finds wrong with such a file says nothing about the one that was meant. It happens when two
    upload to one place: what the first one had under way may arrive after the second one's file.
    """
    for name, file in arrived.items():
        announced = incoming.get(name, {}).get("announced")
        if announced and announced != file["sha256"]:
            raise Unfit(
                name,
                f"its SHA-256 is {file['sha256']}, and {announced} was announced: it changed while it was "
                "sent, or on the way; upload it again",
            )


def small_files(store: ObjectStore, row: Any, incoming: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The checksums of those announced that are read at once, where the check stopped before it took any."""
    found = {}
    for name, file in incoming.items():
        is_read = file.get("announced") and file["size"] <= USUAL_PART_BYTES
        stored = store.head(row.prefix + name) if is_read else None
        if stored is not None and stored.size == file["size"]:
            read = b"".join(store.open_stream(row.prefix + name))
            found[name] = {"sha256": hashlib.sha256(read).hexdigest()}
    return found


def throw_out(store: ObjectStore, prefix: str, names: Iterable[str]) -> None:
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
