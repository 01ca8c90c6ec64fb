"""Making models READY: the files of an upload are checked, and what they say is recorded."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from controlplane.resources.models.states import HF_BASE_MODEL
from controlplane.resources.tables import ModelRow
from controlplane.resources.uploads import CHECKING, INVALID, READY
from controlplane.storage import StorageUnavailable
from workers.context import WorkerContext
from workers.reconcile.lease import LeaseLost, claim_lease, kept_alive
from workers.reconcile.leftovers import remove_unregistered
from workers.validation.adapter_files import BaseModelFacts, validate_adapter
from workers.validation.model_files import InvalidModel, validate_base_model

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
RETRY_AFTER = timedelta(seconds=5)


@dataclass(frozen=True)
class Upload:
    """What is to be checked: the registered files, and the base for an addon."""

    name: str
    prefix: str
    is_base: bool
    sizes: dict[str, int]
    base: BaseModelFacts | None


def reconcile_model(context: WorkerContext, uid: uuid.UUID) -> None:
    """Check a model's upload, once. Findings are written only while the lease holds."""
    lease = claim_lease(context.db, ModelRow, uid, LEASE)
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
                base = session.get(ModelRow, row.base_model_uid) if row.base_model_uid else None
                apply(row, verdict, base)
        with context.db.session() as session:
            lease.release(session, None)
    except StorageUnavailable as error:
        log.warning("model %s cannot be checked now: %s", uid, error)
        with context.db.session() as session:
            lease.guard(session).status_message = "waiting for the object store to check its files"
            lease.release(session, RETRY_AFTER)
    except LeaseLost:
        log.warning("the check of model %s outlived its lease; another worker has it", uid)


def load_upload(context: WorkerContext, uid: uuid.UUID) -> Upload | None:
    with context.db.session() as session:
        row = session.get(ModelRow, uid)
        if row is None or row.state == READY or row.reason != CHECKING:
            return None
        base = session.get(ModelRow, row.base_model_uid) if row.base_model_uid else None
        sizes = {name: file["size"] for name, file in row.files.items()}
        facts = BaseModelFacts.from_dict({**base.facts, "name": base.name}) if base else None
        return Upload(row.name, row.prefix, row.kind == HF_BASE_MODEL, sizes, facts)


def check(context: WorkerContext, upload: Upload) -> dict[str, Any]:
    """The values that the row is to have after the check."""
    try:
        if upload.base is None:
            return accepted(validate_base_model(context.store, upload.prefix, upload.sizes).to_dict())
        most = context.settings.max_lora_rank
        return accepted(
            validate_adapter(context.store, upload.prefix, upload.sizes, upload.base, most).to_dict()
        )
    except InvalidModel as error:
        problems = [problem.to_dict() for problem in error.problems]
        return {
            "reason": INVALID,
            "status_code": "INVALID_ARGUMENT",
            "status_message": str(error),
            "problems": problems,
        }


def accepted(facts: dict[str, Any]) -> dict[str, Any]:
    files = facts.pop("files")
    return {
        "state": READY,
        "reason": "",
        "status_code": "OK",
        "status_message": "",
        "problems": [],
        "files": files,
        "facts": facts,
    }


def apply(row: ModelRow, verdict: dict[str, Any], base: ModelRow | None) -> None:
    """Write the check's findings. An addon has its base's context, and its template unless it brings one."""
    for field, value in verdict.items():
        setattr(row, field, value)
    if row.state != READY:
        return
    facts = verdict["facts"]
    longest = base.context_length if base else facts["context_length"]
    row.context_length = min(row.context_length or longest, longest)
    row.supports_tools = row.supports_tools or bool(facts["supports_tools"])
    row.conversation_config = own_conversation(facts) or (base.conversation_config if base else None)


def own_conversation(facts: dict[str, Any]) -> dict[str, Any] | None:
    template = facts.get("chat_template")
    if template:
        return {"style": "jinja", "template": template}
    found: dict[str, Any] | None = facts.get("conversation_config")
    return found
