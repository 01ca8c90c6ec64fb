"""From a result to a model: the adapter is copied to the model's place and checked like an upload."""

from __future__ import annotations

import json
import uuid
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.names import generate_id
from controlplane.resources.fine_tuning_jobs.states import WRITING_RESULTS, mark
from controlplane.resources.models.states import HF_PEFT_ADDON
from controlplane.resources.tables import FineTuningJobRow, ModelRow
from controlplane.resources.uploads import CHECKING, UPLOADING
from workers.context import WorkerContext
from workers.reconcile.lease import Lease
from workers.reconcile.visit import Superseded

REGISTERED = "REGISTERED"
"""A job's `reason` once its model exists: a model that is gone then was deleted."""


def register_model(
    context: WorkerContext, lease: Lease, job: FineTuningJobRow, result: dict[str, Any]
) -> None:
    """Make the model row, have its files checked, and keep the trainer's result.

    The model's uid is recorded before anything is copied: a worker that dies in between is followed by one
    that copies the same objects to the same place.
    """
    model_uid = job.output_model_uid or record_uid(context, lease)
    manifest = json.loads(context.store.get_bytes(job.prefix + "adapter/manifest.json"))
    prefix = model_prefix(job, model_uid)
    for name in manifest["files"]:
        context.store.copy(f"{job.prefix}adapter/{name}", prefix + name)
    with context.db.session() as session:
        row = lease.guard(session)
        if row.state != job.state:
            raise Superseded  # cancelled or deleted: resuming or deleting clears away what was copied
        session.add(adapter_row(session, row, model_uid, manifest["files"]))
        row.result = result
        mark(row, WRITING_RESULTS, reason=REGISTERED, message="its model is being checked")


def model_prefix(job: FineTuningJobRow, model_uid: uuid.UUID) -> str:
    """Where the files of the model that a job makes lie in the object store."""
    return f"accounts/{job.account_id}/models/{model_uid}/"


def record_uid(context: WorkerContext, lease: Lease) -> uuid.UUID:
    uid = uuid.uuid4()
    with context.db.session() as session:
        lease.guard(session).output_model_uid = uid
    return uid


def adapter_row(
    session: Session, job: FineTuningJobRow, model_uid: uuid.UUID, files: dict[str, Any]
) -> ModelRow:
    taken = session.scalar(
        select(ModelRow.uid).where(ModelRow.account_id == job.account_id, ModelRow.id == job.model_id)
    )
    if taken is not None:
        # Somebody made a model of this name while the job ran: the training is not thrown away for it.
        job.model_id = f"{job.model_id[:54]}-{generate_id()}"
    return ModelRow(
        uid=model_uid,
        account_id=job.account_id,
        id=job.model_id,
        display_name=job.display_name,
        kind=HF_PEFT_ADDON,
        base_model_uid=job.base_model_uid,
        fine_tuning_job=job.name,
        lineage={**job.settings.get("lineage", {}), "fine_tuning_job": job.name},
        created_by=job.created_by,
        files={name: {"size": file["size"], "sha256": file["sha256"]} for name, file in files.items()},
        state=UPLOADING,
        reason=CHECKING,
        status_message="its files are being checked",
        next_reconcile_at=func.now(),
    )
