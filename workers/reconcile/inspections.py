"""Inspections: a dataset read as a job would read it, by a process of its own, and what it found kept.

The process gets files and no way to the object store or the database: what it reads is a stranger's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from controlplane.resources.inspections.states import FAILED, PENDING, READY
from controlplane.resources.tables import InspectionRow
from workers.context import WorkerContext
from workers.reconcile.fine_tuning.spec import job_spec
from workers.reconcile.lease import Lease
from workers.reconcile.visit import visit
from workers.runtimes.node_cache import StagingError, stage_model
from workers.runtimes.node_settings import PASSED_ON, PASSED_ON_PREFIXES
from workers.training.errors import OUT_OF_MEMORY
from workers.training.preflight.inspected_files import SMALL_FILES, InspectionFiles, StagedSource

AT_ONCE = threading.BoundedSemaphore(2)
"""Of each worker: an inspection takes processors and memory of the machine, not of this process."""
WAIT_FOR_TURN = timedelta(seconds=1)
GIB = 1 << 30
MAX_SECONDS = 3600.0
LAST_WORDS = 500


def reconcile_inspection(context: WorkerContext, uid: uuid.UUID) -> None:
    visit(context, InspectionRow, uid, inspect, give_up)


def give_up(row: InspectionRow, cause: str) -> bool:
    if row.state != PENDING:
        return False
    row.state, row.status_code = FAILED, "INTERNAL"
    row.status_message = f"the dataset could not be inspected: {cause}"
    return True


def inspect(context: WorkerContext, lease: Lease) -> timedelta | None:
    """Make the report, if it is still wanted."""
    with context.db.session() as session:
        row = lease.guard(session)
        if row.state != PENDING:
            return None
        spec = job_spec(session, row, context.settings)
        memory = context.settings.inspection_memory_gib * GIB
        document = {"spec": spec, "first_row": row.first_row, "memory_bytes": memory}
    if not AT_ONCE.acquire(blocking=False):
        return WAIT_FOR_TURN
    folder = context.settings.data_dir.absolute() / "inspections" / str(lease.uid)
    try:
        verdict = find_out(context, document, folder)
    finally:
        AT_ONCE.release()
        shutil.rmtree(folder, ignore_errors=True)
    with context.db.session() as session:
        for field, value in verdict.items():
            setattr(lease.guard(session), field, value)
    return None


def find_out(context: WorkerContext, document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values that the row is to have."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        files = stage(context, document["spec"], folder)
    except StagingError as error:
        if error.retryable:
            raise
        return failed(error.code, error.message)
    return run({**document, "files": files.to_dict()}, folder)


def stage(context: WorkerContext, spec: dict[str, Any], folder: Path) -> InspectionFiles:
    """The files that an inspection reads: of the model all but its weights."""

    def fetch(source: dict[str, Any] | None, wanted: tuple[str, ...] | None = None) -> list[str]:
        if source is None:
            return []
        files = [StagedSource(**file) for file in source["files"] if not wanted or file["name"] in wanted]
        there = stage_model(context.store, source["prefix"], files, folder, uid=source["uid"])
        return [str(there / file.name) for file in files]

    base = fetch(spec["base_model"], SMALL_FILES)
    return InspectionFiles(
        base=str(Path(base[0]).parent) if base else str(folder),
        dataset=[path for source in spec["datasets"] for path in fetch(source)],
        evaluation=fetch(spec["evaluation_dataset"]),
        work=str(folder),
    )


def run(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "workers.training.inspect"]
    env = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(document),
            capture_output=True,
            text=True,
            env=env,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return failed("DEADLINE_EXCEEDED", f"reading the dataset took longer than {MAX_SECONDS:.0f} s")
    if done.returncode != 0 and OUT_OF_MEMORY.search(done.stderr):
        most = f"{document['memory_bytes'] / GIB:.0f} GiB of memory that an inspection may take"
        return failed(
            "RESOURCE_EXHAUSTED",
            f"reading the dataset took more than the {most}: a smaller dataset, or shorter rows, need less",
            reason="OUT_OF_MEMORY",
        )
    if done.returncode != 0:
        raise RuntimeError(f"the inspection ended with {done.returncode}: {done.stderr[-LAST_WORDS:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "report" not in answer:
        return failed(answer["code"], answer["message"])
    return {"state": READY, "report": answer["report"]}


def failed(code: str, message: str, reason: str = "") -> dict[str, Any]:
    return {"state": FAILED, "status_code": code, "reason": reason, "status_message": message}
