from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.db import now
from controlplane.errors import failed_precondition, invalid
from controlplane.names import ResourceName, check_id, generate_id, parse_name
from controlplane.resources.deployment_shapes.choice import find_version
from controlplane.resources.deployment_shapes.schemas import (
    DeploymentShape,
    DeploymentShapeVersion,
    shape_message,
    snapshot_of,
    version_message,
)
from controlplane.resources.deployments.accelerators import UNSPECIFIED
from controlplane.resources.deployments.drafts import find_draft, in_full
from controlplane.resources.deployments.engine import (
    OF_SHAPES,
    WAYS_TO_GUESS,
    EngineSettings,
    check_addon_slots,
    check_engine,
)
from controlplane.resources.models.service import find_readable
from controlplane.resources.models.states import HF_BASE_MODEL
from controlplane.resources.tables import DeploymentShapeRow, DeploymentShapeVersionRow, ModelRow
from controlplane.rest.access import find, insert
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes, refuse_fixed
from controlplane.rest.responses import message_dict

SETTABLE = (
    "display_name",
    "description",
    *OF_SHAPES,
    "disable_speculative_decoding",
    "enable_session_affinity",
    "disable_deployment_size_validation",
    "preset_type",
)
COLLECTION = "deploymentShapes"


async def create_shape(
    session: AsyncSession, caller: Caller, shape_id: str, body: DeploymentShape
) -> DeploymentShapeRow:
    """A new shape with its first version."""
    given = body.given()
    base = await shaped_model(session, caller, given.get("base_model", ""))
    row = DeploymentShapeRow(
        account_id=caller.account_id,
        id=check_id(shape_id or generate_id(), "deploymentShapeId"),
        created_by=caller.email,
        base_model_uid=base.uid,
        base_model=base.name,
        model_type=base.facts.get("model_type", ""),
        parameter_count=base.facts.get("parameter_count", 0),
        **{field: value for field, value in in_full(given, caller.account_id).items() if field in SETTABLE},
    )
    await insert(session, row, row.name)
    await check_settings(session, row, base)
    await add_version(session, row)
    return row


async def shaped_model(session: AsyncSession, caller: Caller, given: str) -> ModelRow:
    """The base model that a shape is for: one that the caller may read, READY and of the right kind."""
    if not given:
        raise invalid("baseModel is required", "baseModel")
    base = await find_readable(session, caller, parse_name(given, "models", caller.account_id, "baseModel"))
    if base.kind != HF_BASE_MODEL:
        raise invalid(
            f"{base.name} is an addon; a shape is for its base model, with enableAddons", "baseModel"
        )
    if base.state != "READY":
        raise failed_precondition(f"{base.name} is {base.state}, not READY")
    return base


async def check_settings(session: AsyncSession, row: DeploymentShapeRow, base: ModelRow) -> None:
    """Refuse what no engine could be started with anywhere.

    Accelerators may be others than this machine has: the shape fits nothing then, until it has them.
    """
    check_addon_slots(EngineSettings.of(row), "numLoraDeviceCached")
    anywhere = replace(EngineSettings.of(row), accelerator_type=UNSPECIFIED, accelerator_count=0)
    check_engine(session, anywhere, base)
    for way in (way for way in WAYS_TO_GUESS if getattr(row, way)):
        if row.disable_speculative_decoding:
            name = to_camel(way)
            raise invalid(f"disableSpeculativeDecoding and {name} exclude each other", name)
    await find_draft(session, row.account_id, anywhere, base)


async def add_version(session: AsyncSession, row: DeploymentShapeRow) -> DeploymentShapeVersionRow:
    """A version of the shape as it is now. The caller holds the shape's lock, or has just made it."""
    row.newest_version += 1
    await session.flush()
    version = DeploymentShapeVersionRow(
        shape_uid=row.uid,
        account_id=row.account_id,
        shape_id=row.id,
        id=generate_id(),
        number=row.newest_version,
        base_model_uid=row.base_model_uid,
        snapshot=message_dict(shape_message(row)),
    )
    session.add(version)
    await session.flush()
    return version


async def update_shape(
    session: AsyncSession, name: ResourceName, body: DeploymentShape, mask: str, *, from_validated: bool
) -> DeploymentShapeRow:
    """Change a shape, as it is now or as its latest validated version has it; that makes a new version."""
    row = await find(session, DeploymentShapeRow, name, lock=True)
    changed = changes(session, body, mask, shape_message(row))
    refuse_another_base(row, changed)
    refuse_fixed(changed, (*SETTABLE, "base_model"), "a deployment shape")
    fresh = {field: changed[field] for field in SETTABLE if field in changed}
    if from_validated:
        earlier = snapshot_of(await latest_validated(session, row))
        fresh = {field: getattr(earlier, field) for field in SETTABLE} | sent_fields(body, mask)
    if any(getattr(row, field) != value for field, value in fresh.items()):
        await change_shape(session, row, fresh)
    return row


def refuse_another_base(row: DeploymentShapeRow, changed: dict[str, Any]) -> None:
    if "base_model" in changed:
        wanted = parse_name(changed["base_model"], "models", row.account_id, "baseModel")
        if str(wanted) != row.base_model:
            raise invalid(f"baseModel of a shape cannot be changed; it is {row.base_model}", "baseModel")


async def latest_validated(session: AsyncSession, row: DeploymentShapeRow) -> DeploymentShapeVersionRow:
    query = select(DeploymentShapeVersionRow).where(
        DeploymentShapeVersionRow.shape_uid == row.uid, DeploymentShapeVersionRow.latest_validated
    )
    found = await session.scalar(query)
    if found is None:
        raise failed_precondition(f"{row.name} has no validated version to go from")
    return found


def sent_fields(body: DeploymentShape, mask: str) -> dict[str, Any]:
    """What a PATCH sends, or names in its mask, whatever it was before."""
    paths = [path for path in mask.split(",") if path.strip()]
    named = {body.field_of_path(path)[0] for path in paths} if paths and mask.strip() != "*" else None
    return {
        field: getattr(body, field)
        for field in SETTABLE
        if field in (body.model_fields_set if named is None else named)
    }


async def change_shape(session: AsyncSession, row: DeploymentShapeRow, fresh: dict[str, Any]) -> None:
    for field, value in in_full(fresh, row.account_id).items():
        setattr(row, field, value)
    base = await session.get(ModelRow, row.base_model_uid) if row.base_model_uid else None
    if base is not None:
        await check_settings(session, row, base)
    row.update_time = now()
    await add_version(session, row)


async def delete_shape(session: AsyncSession, name: ResourceName) -> None:
    """Forget a shape and its versions. Deployments made with it keep its settings, and its version's name."""
    row = await find(session, DeploymentShapeRow, name, lock=True)
    refuse_other_version(session, shape_message(row))
    await session.delete(row)


async def update_version(
    session: AsyncSession,
    caller: Caller,
    shape: ResourceName,
    version_id: str,
    body: DeploymentShapeVersion,
    mask: str,
) -> DeploymentShapeVersionRow:
    """Say of a version that it is validated, or public, or that it is not any more."""
    shape_row = await find(session, DeploymentShapeRow, shape, lock=True)
    row = await find_version(session, caller, shape.account_id, shape.id, version_id)
    changed = changes(session, body, mask, version_message(row))
    base = await session.get(ModelRow, row.base_model_uid) if row.base_model_uid else None
    if changed.get("validated"):
        await refuse_unservable(session, row, base)
    if changed.get("public"):
        await refuse_private_models(session, row, base)
    row.validated = changed.get("validated", row.validated)
    row.public = changed.get("public", row.public)
    await session.flush()
    await mark_latest_validated(session, shape_row)
    return row


async def refuse_unservable(
    session: AsyncSession, row: DeploymentShapeVersionRow, base: ModelRow | None
) -> None:
    """A version is not called validated that no deployment here could be made with."""
    if base is None or base.state != "READY":
        raise failed_precondition(
            f"{row.name} cannot be validated: its base model {row.snapshot['baseModel']} is not READY"
        )
    settings = EngineSettings.of(snapshot_of(row))
    check_engine(session, settings, base)
    await find_draft(session, row.account_id, settings, base)


async def refuse_private_models(
    session: AsyncSession, row: DeploymentShapeVersionRow, base: ModelRow | None
) -> None:
    if base is None or not base.public:
        raise failed_precondition(
            f"{row.name} cannot be public: its base model {row.snapshot['baseModel']} is not"
        )
    settings = EngineSettings.of(snapshot_of(row))
    draft = await find_draft(session, row.account_id, settings, base)
    if draft is not None and not draft.public:
        raise failed_precondition(f"{row.name} cannot be public: its draft model {draft.name} is not")


async def mark_latest_validated(session: AsyncSession, shape: DeploymentShapeRow) -> None:
    """Make the newest validated version the latest one. The caller holds the shape's lock."""
    query = (
        select(DeploymentShapeVersionRow)
        .where(DeploymentShapeVersionRow.shape_uid == shape.uid)
        .where(DeploymentShapeVersionRow.validated | DeploymentShapeVersionRow.latest_validated)
        .order_by(DeploymentShapeVersionRow.number.desc())
    )
    rows = list(await session.scalars(query))
    latest = next((row for row in rows if row.validated), None)
    for row in rows:
        if row is not latest:
            row.latest_validated = False
    await session.flush()  # first: a shape has one latest version at any moment
    if latest is not None:
        latest.latest_validated = True
        await session.flush()
