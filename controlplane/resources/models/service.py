from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import failed_precondition, invalid, not_found, unimplemented
from controlplane.names import ResourceName, check_id, parse_name
from controlplane.resources.models.references import refuse_delete_in_use, refuse_private_in_use
from controlplane.resources.models.schemas import (
    OF_OLDER_CLIENTS,
    CreateModelRequest,
    Model,
    model_message,
    supported_precisions,
)
from controlplane.resources.models.states import (
    BASE_KINDS,
    HF_BASE_MODEL,
    HF_PEFT_ADDON,
    OTHER_KINDS,
    SUPPORTED_KINDS,
)
from controlplane.resources.quotas.service import claim_model
from controlplane.resources.tables import DeploymentRow, DeploymentShapeRow, ModelRow
from controlplane.resources.uploads import READY, UPLOADING, add_garbage, reset_verdict
from controlplane.rest.access import find, insert
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes, refuse_fixed

UPDATABLE = (
    "display_name",
    "description",
    "github_url",
    "hugging_face_url",
    "public",
    "context_length",
    "default_draft_model",
    "default_draft_token_count",
)
IGNORED_ON_UPDATE = ("base_model_details", *OF_OLDER_CLIENTS)
SAID_OF_FILES = {
    "parameter_count",
    "moe",
    "tunable",
    "model_type",
    "r",
    "target_modules",
    "supports_image_input",
    "supports_lora",
    "supports_tools",
    "use_hf_apply_chat_template",
}
"""What a client may say when it creates a model, and the check of its files finds out."""
UNTOLD = {"fine_tuning_job": "", "lineage": None}
"""Of another account's model nobody is told what it was made of."""
SERVED_FORMATS = ("CHECKPOINT_FORMAT_UNSPECIFIED", "HUGGINGFACE")


async def find_readable(
    session: AsyncSession, caller: Caller, name: ResourceName, *, keep: bool = False
) -> ModelRow:
    """A model that the caller may read: the account's own, or a public one. 404 otherwise.

    With `keep` it stays readable, and there, until the transaction ends: for who is about to stand on it.
    """
    return await find_readable_by(session, caller.account_id, name, keep=keep)


async def find_readable_by(
    session: AsyncSession, account_id: str, name: ResourceName, *, keep: bool = False
) -> ModelRow:
    query = select(ModelRow).where(ModelRow.account_id == name.account_id, ModelRow.id == name.id)
    if keep:
        query = query.with_for_update(read=True, key_share=True).execution_options(populate_existing=True)
    row = await session.scalar(query)
    if row is None or not is_readable(row, account_id):
        raise not_found(str(name))
    return row


def is_readable(row: ModelRow, account_id: str) -> bool:
    """Others see a public model once its files are checked."""
    return row.account_id == account_id or (row.public and row.state == READY)


async def create_model(session: AsyncSession, caller: Caller, request: CreateModelRequest) -> ModelRow:
    request.refuse_unsupported()
    given = request.model.given()
    kind = chosen_kind(given)
    refuse_other_details(given, kind)
    row = ModelRow(
        account_id=caller.account_id,
        id=check_id(request.model_id, "modelId"),
        kind=kind,
        state=UPLOADING,
        created_by=caller.email,
        facts=said_of_files(given),
        supports_tools=given.get("supports_tools", False),
        **{field: given[field] for field in UPDATABLE if field in given},
    )
    await set_default_draft(session, row, given, "model.")
    if kind == HF_PEFT_ADDON:
        row.base_model_uid = (await addon_base(session, caller, given)).uid
    reset_verdict(row)
    await claim_model(session, caller.account_id)
    await insert(session, row, row.name)
    return row


def said_of_files(given: dict[str, Any]) -> dict[str, Any]:
    """What the client says of the files that it will upload: shown until they have been checked."""
    said = {name: given[name] for name in SAID_OF_FILES & given.keys()}
    for part in (given.get("base_model_details"), given.get("peft_details")):
        if part is not None:
            said |= {name: getattr(part, name) for name in SAID_OF_FILES & part.model_fields_set}
    return {name: value for name, value in said.items() if value}


def chosen_kind(given: dict[str, Any]) -> str:
    kind: str = given.get("kind") or "KIND_UNSPECIFIED"
    if kind == "KIND_UNSPECIFIED":
        kind = HF_BASE_MODEL if given.get("base_model_details") else HF_PEFT_ADDON
    if kind in OTHER_KINDS:
        raise invalid(
            f"models of kind {kind} are not supported; use {' or '.join(SUPPORTED_KINDS)}", "model.kind"
        )
    return kind


def refuse_other_details(given: dict[str, Any], kind: str) -> None:
    field = "peft_details" if kind in BASE_KINDS else "base_model_details"
    if given.get(field) is not None:
        name = f"model.{to_camel(field)}"
        raise invalid(f"{name} does not go with kind {kind}", name)
    details = given.get("base_model_details")
    if details is not None and details.checkpoint_format not in SERVED_FORMATS:
        name = "model.baseModelDetails.checkpointFormat"
        raise invalid(f"{name} {details.checkpoint_format} is not supported; use HUGGINGFACE", name)


async def addon_base(session: AsyncSession, caller: Caller, given: dict[str, Any]) -> ModelRow:
    """The base model that a new addon names: READY, of the right kind, and able to carry LoRA."""
    details = given.get("peft_details")
    if details is None or not details.base_model:
        raise invalid("an addon needs peftDetails.baseModel", "model.peftDetails.baseModel")
    name = parse_name(details.base_model, "models", caller.account_id, "peftDetails.baseModel")
    base = await find_readable(session, caller, name, keep=True)
    if base.kind != HF_BASE_MODEL:
        kind = "an embedding model" if base.kind in BASE_KINDS else "itself an addon"
        raise invalid(f"{base.name} is {kind}", "model.peftDetails.baseModel")
    if base.state != READY:
        raise failed_precondition(f"base model {base.name} is not READY")
    if not base.facts.get("supports_lora"):
        raise invalid(
            f"the engine serves no addons on {base.facts.get('architecture')}", "model.peftDetails.baseModel"
        )
    return base


async def set_default_draft(
    session: AsyncSession, row: ModelRow, given: dict[str, Any], prefix: str = ""
) -> None:
    """Check what the row now says of its default draft model, and have its name in full.

    Whether it can guess for the row's own model is told when a deployment is created: either may still be
    without files.
    """
    model, count = (f"{prefix}{name}" for name in ("defaultDraftModel", "defaultDraftTokenCount"))
    if bool(row.default_draft_model) != bool(row.default_draft_token_count):
        missing, there = (count, model) if row.default_draft_model else (model, count)
        raise invalid(f"{there} needs {missing}: which model guesses, and how many tokens at a time", missing)
    if not row.default_draft_model:
        return
    if row.kind != HF_BASE_MODEL:
        raise invalid(f"{model} is for base models that write text, and this one is a {row.kind}", model)
    name = parse_name(row.default_draft_model, "models", row.account_id, model)
    row.default_draft_model = str(name)
    if "default_draft_model" in given:
        if str(name) == row.name:
            raise invalid(f"{model} is the model itself, which guesses no faster than it answers", model)
        draft = await find_readable_by(session, row.account_id, name)
        if draft.kind != HF_BASE_MODEL:
            raise invalid(f"{draft.name} is a {draft.kind}, and {model} is a base model", model)
    if row.public and {"public", "default_draft_model"} & given.keys():
        await refuse_private_draft(session, row, name)


async def refuse_private_draft(session: AsyncSession, row: ModelRow, name: ResourceName) -> None:
    """Who reads a public model is told which one guesses for it, and deploys with it."""
    query = select(ModelRow.public).where(ModelRow.account_id == name.account_id, ModelRow.id == name.id)
    if await session.scalar(query) is False:
        raise failed_precondition(
            f"{row.name} cannot be public with a default draft model that is not; make {name} public first"
        )


async def update_model(session: AsyncSession, name: ResourceName, body: Model, mask: str) -> Model:
    row = await find(session, ModelRow, name, lock=True)
    base = await session.get(ModelRow, row.base_model_uid) if row.base_model_uid else None
    changed = changes(session, body, mask, model_message(row, base))
    refuse_fixed(changed, (*UPDATABLE, *IGNORED_ON_UPDATE), "a model")
    if changed.get("context_length", 0) > (
        row.facts.get("context_length") or changed.get("context_length", 0)
    ):
        raise invalid(
            f"contextLength is more than the model's own {row.facts['context_length']}", "contextLength"
        )
    if changed.get("public") is False:
        await refuse_private_in_use(session, row)
    for field in UPDATABLE:
        if field in changed:
            setattr(row, field, changed[field])
    await set_default_draft(session, row, changed)
    await session.flush()
    return model_message(row, base)


async def delete_model(session: AsyncSession, name: ResourceName) -> None:
    seen = await find(session, ModelRow, name)
    await lock_dependents(session, seen.uid)
    session.expunge(seen)  # it may have changed meanwhile
    row = await find(session, ModelRow, name, lock=True)
    base = await session.get(ModelRow, row.base_model_uid) if row.base_model_uid else None
    refuse_other_version(session, model_message(row, base))
    await refuse_delete_in_use(session, row)
    await session.execute(
        delete(DeploymentRow).where(DeploymentRow.base_model_uid == row.uid, DeploymentRow.state == "DELETED")
    )
    add_garbage(session, row.prefix)
    await session.delete(row)


async def lock_dependents(session: AsyncSession, uid: uuid.UUID) -> None:
    """Hold what changes when the model goes; before the model itself, which is the order that all keep."""
    deleted = select(DeploymentRow.uid).where(
        or_(DeploymentRow.base_model_uid == uid, DeploymentRow.draft_model_uid == uid),
        DeploymentRow.state == "DELETED",
    )
    shapes = select(DeploymentShapeRow.uid).where(DeploymentShapeRow.base_model_uid == uid)
    for query in (deleted.order_by(DeploymentRow.uid), shapes.order_by(DeploymentShapeRow.uid)):
        await session.execute(query.with_for_update())


async def shown_to(session: AsyncSession, account_id: str, rows: Sequence[ModelRow]) -> list[Model]:
    """These models as an account sees them: of another's, nothing that is private there is named."""
    uids = {row.base_model_uid for row in rows if row.base_model_uid}
    found = await session.scalars(select(ModelRow).where(ModelRow.uid.in_(uids))) if uids else ()
    bases = {row.uid: row for row in found}
    messages = []
    for row in rows:
        base = bases.get(row.base_model_uid) if row.base_model_uid else None
        own = row.account_id == account_id
        message = model_message(row, base if base and (own or is_readable(base, account_id)) else None)
        messages.append(message if own else message.model_copy(update=UNTOLD))
    return messages


def refuse_skipping(skip_hf_config_validation: bool, trust_remote_code: bool, config_only: bool) -> None:
    """The check has no shortcuts: what it would pass over is what later fails on a GPU."""
    if trust_remote_code:
        raise invalid(
            "trustRemoteCode is refused: code that comes with a model is never run", "trustRemoteCode"
        )
    if skip_hf_config_validation:
        raise invalid(
            "skipHfConfigValidation is not supported: every model is checked", "skipHfConfigValidation"
        )
    if config_only:
        raise invalid("configOnly is not supported: a model is checked as a whole", "configOnly")


def refuse_other_precision(row: ModelRow, precision: str) -> None:
    """A model has the precision of its files, and no other is made of it beforehand."""
    if precision == "PRECISION_UNSPECIFIED":
        raise invalid("precision is required", "precision")
    if row.state != READY:
        raise failed_precondition(f"{row.name} is {row.state}, not READY")
    has = supported_precisions(row)
    if precision not in has:
        raise unimplemented(
            f"models are not prepared in other precisions: {row.name} has {' and '.join(has) or 'none'}; "
            f"set the deployment's precision, or upload a checkpoint that is in {precision} as another model"
        )
