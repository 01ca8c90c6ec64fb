"""Making models READY: the files of an upload are checked, and what they say is recorded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy.orm import Session

from controlplane.checks.problems import Problem
from controlplane.checks.wording import listed, shown
from controlplane.prices import Prices
from controlplane.resources.models.states import BASE_KINDS, EMBEDDING_MODEL
from controlplane.resources.tables import ModelRow
from controlplane.resources.uploads import READY
from workers.context import WorkerContext
from workers.metering import meter_promoted
from workers.reconcile.lease import Lease
from workers.reconcile.uploads import Verdict, check_upload, give_up_check, refused
from workers.reconcile.visit import visit
from workers.validation.adapter_files import BaseModelFacts, validate_adapter
from workers.validation.model_files import InvalidModel, validate_base_model


@dataclass(frozen=True)
class Upload:
    """What is to be checked: the registered files, and the base for an addon."""

    prefix: str
    sizes: dict[str, int]
    base: BaseModelFacts | None
    embedding: bool = False
    """It is to embed texts, or to score pairs of them."""


def reconcile_model(context: WorkerContext, uid: uuid.UUID) -> None:
    """Check a model's upload, when that is asked for."""
    visit(context, ModelRow, uid, check_model, give_up_check)


def check_model(context: WorkerContext, lease: Lease) -> timedelta | None:
    prices = context.settings.prices or Prices()

    def record_and_meter(session: Session, row: ModelRow, verdict: Verdict) -> None:
        record(session, row, verdict)
        if row.state == READY:
            meter_promoted(session, prices, row)

    check_upload(context, lease, load_upload, check, record_and_meter, complain)
    return None


def load_upload(session: Session, row: ModelRow) -> Upload:
    base = base_of(session, row)
    sizes = {name: file["size"] for name, file in row.files.items()}
    facts = BaseModelFacts.from_dict({**base.facts, "name": base.name}) if base else None
    return Upload(row.prefix, sizes, facts, row.kind == EMBEDDING_MODEL)


def base_of(session: Session, row: ModelRow) -> ModelRow | None:
    """The base of an addon. A base model has none, and an addon always has one: it cannot be deleted."""
    return None if row.kind in BASE_KINDS else session.get_one(ModelRow, row.base_model_uid)


def check(context: WorkerContext, upload: Upload) -> Verdict:
    """The values that the row is to have after the check."""
    try:
        if upload.base is None:
            found = validate_base_model(
                context.store, upload.prefix, upload.sizes, embedding=upload.embedding
            )
            return accepted(found.to_dict())
        most = context.settings.max_lora_rank
        return accepted(
            validate_adapter(context.store, upload.prefix, upload.sizes, upload.base, most).to_dict()
        )
    except InvalidModel as error:
        return {**refused(str(error)), "problems": [problem.to_dict() for problem in error.problems]}


def complain(file: str, reason: str) -> Verdict:
    problem = Problem(file, "", reason)
    return {**refused(str(problem)), "problems": [problem.to_dict()]}


def accepted(facts: dict[str, Any]) -> Verdict:
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


def record(session: Session, row: ModelRow, verdict: Verdict) -> None:
    """Write the check's findings. An addon has its base's context, and its template unless it brings one."""
    said = row.facts
    for field, value in verdict.items():
        setattr(row, field, value)
    if row.state != READY:
        return
    facts, base = verdict["facts"], base_of(session, row)
    longest = base.context_length if base else facts["context_length"]
    row.context_length = min(row.context_length or longest, longest)
    own = own_conversation(facts)
    row.conversation_config = own or (base.conversation_config if base else None)
    row.supports_tools = base.supports_tools if base and not own else bool(facts["supports_tools"])
    row.supports_image_input = bool((base.facts if base else facts).get("supports_image_input"))
    found = {**facts, "supports_tools": row.supports_tools}
    found["use_hf_apply_chat_template"] = row.conversation_config is not None
    row.facts = {**facts, "warnings": [*facts.get("warnings", []), *contradictions(said, found)]}


def contradictions(said: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Where the files are not what their owner said when the model was created: the files count."""
    found = {**found, "tunable": found.get("supports_lora")}
    return [
        f"{to_camel(name)} was given as {told(value)}, and by the files it is {told(found.get(name))}"
        for name, value in sorted(said.items())
        if as_set(value) != as_set(found.get(name))
    ]


def as_set(value: Any) -> Any:
    """Lists of modules are the same in any order."""
    return set(value) if isinstance(value, list) else value


def told(value: Any) -> str:
    if value is None:
        return "not there"
    return listed(value) if isinstance(value, list) else shown(value)


def own_conversation(facts: dict[str, Any]) -> dict[str, Any] | None:
    template = facts.get("chat_template")
    if template:
        return {"style": "jinja", "template": template}
    found: dict[str, Any] | None = facts.get("conversation_config")
    return found
