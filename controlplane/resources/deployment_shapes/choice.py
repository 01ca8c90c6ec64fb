"""Which version of a shape a caller means, and which ones fit a deployment that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from controlplane.auth import Caller
from controlplane.errors import ApiError, failed_precondition, invalid, not_found
from controlplane.names import InvalidName, parse_name
from controlplane.regions import ANYWHERE, Regions
from controlplane.resources.deployment_shapes.schemas import snapshot_of
from controlplane.resources.deployments.drafts import find_draft
from controlplane.resources.deployments.engine import (
    LEFT_OPEN,
    OF_THE_ENGINE,
    WAYS_TO_GUESS,
    EngineSettings,
    check_engine,
    sent_as,
    settings_in,
)
from controlplane.resources.tables import DeploymentShapeVersionRow, ModelRow

DEFAULT = "default"
VERSIONS = "/versions/"


@dataclass(frozen=True)
class ShapeRules:
    """By which rules shapes are chosen and held to."""

    platform_account: str
    skip_validation: bool = False
    """Versions need not be validated, and what the request says itself wins over the shape."""
    risk_accepted: bool = False
    """The caller wants no shape, and says so."""
    without_speculation: bool = False
    """What a shape says of guessing tokens ahead is left out."""
    regions: Regions = ANYWHERE
    """Where the deployment is to run: a shape whose accelerators are not there does not fit."""


def readable_versions(caller: Caller, table: Any = DeploymentShapeVersionRow) -> ColumnElement[bool]:
    """The account's own versions, and others' public ones whose base model the account may read."""
    base = (
        select(ModelRow.uid)
        .where(
            ModelRow.uid == table.base_model_uid,
            or_(ModelRow.account_id == caller.account_id, and_(ModelRow.public, ModelRow.state == "READY")),
        )
        .exists()
    )
    return or_(table.account_id == caller.account_id, and_(table.public, base))


def newest_only(caller: Caller, *, validated: bool) -> ColumnElement[bool]:
    """Of each shape the newest version that the caller may read, or the newest validated one of those."""
    other = aliased(DeploymentShapeVersionRow)
    newest = select(func.max(other.number)).where(
        other.shape_uid == DeploymentShapeVersionRow.shape_uid,
        readable_versions(caller, other),
        *([other.validated] if validated else []),
    )
    return DeploymentShapeVersionRow.number == newest.scalar_subquery()


async def find_version(
    session: AsyncSession, caller: Caller, account_id: str, shape_id: str, version_id: str
) -> DeploymentShapeVersionRow:
    """A version that the caller may read; 404 otherwise."""
    name = f"accounts/{account_id}/deploymentShapes/{shape_id}/versions/{version_id}"
    query = select(DeploymentShapeVersionRow).where(
        DeploymentShapeVersionRow.account_id == account_id,
        DeploymentShapeVersionRow.shape_id == shape_id,
        DeploymentShapeVersionRow.id == version_id,
        readable_versions(caller),
    )
    row = await session.scalar(query)
    if row is None:
        raise not_found(name)
    return row


async def named_version(
    session: AsyncSession, caller: Caller, given: str, rules: ShapeRules
) -> DeploymentShapeVersionRow:
    """The version that `deploymentShape` names: a version itself, or the newest validated one of a shape."""
    shape, _, version_id = given.partition(VERSIONS)
    try:
        plain = shape if version_id else given
        name = parse_name(plain, "deploymentShapes", caller.account_id, "deploymentShape")
    except InvalidName as error:
        raise invalid(f"{error}, and may go on with /versions/{{version}}", "deploymentShape") from None
    if version_id:
        row = await find_version(session, caller, name.account_id, name.id, version_id)
        if not row.validated and not rules.skip_validation:
            raise failed_precondition(f"{row.name} is not validated; {HOW_TO_GO_ON}")
        return row
    return await newest_of(session, caller, name.account_id, name.id, rules)


HOW_TO_GO_ON = "have its validated set, or set skipShapeValidation"


async def newest_of(
    session: AsyncSession, caller: Caller, account_id: str, shape_id: str, rules: ShapeRules
) -> DeploymentShapeVersionRow:
    def of_the_shape(validated: bool) -> Any:
        return select(DeploymentShapeVersionRow).where(
            DeploymentShapeVersionRow.account_id == account_id,
            DeploymentShapeVersionRow.shape_id == shape_id,
            readable_versions(caller),
            newest_only(caller, validated=validated),
        )

    row: DeploymentShapeVersionRow | None = await session.scalar(of_the_shape(not rules.skip_validation))
    if row is None:
        name = f"accounts/{account_id}/deploymentShapes/{shape_id}"
        if await session.scalar(of_the_shape(validated=False)) is None:
            raise not_found(name)
        raise failed_precondition(f"{name} has no validated version; {HOW_TO_GO_ON}")
    return row


async def fitting_versions(
    session: AsyncSession, caller: Caller, base: ModelRow, wanted: Mapping[str, Any], rules: ShapeRules
) -> list[DeploymentShapeVersionRow]:
    """The newest versions, by time, of the account's own shapes and the platform account's that fit.

    Other accounts' public shapes are left out: whoever publishes one must not be able to choose for others.
    """
    query = (
        select(DeploymentShapeVersionRow)
        .where(
            DeploymentShapeVersionRow.base_model_uid == base.uid,
            DeploymentShapeVersionRow.account_id.in_({caller.account_id, rules.platform_account}),
            readable_versions(caller),
            newest_only(caller, validated=not rules.skip_validation),
        )
        .order_by(DeploymentShapeVersionRow.create_time.desc(), DeploymentShapeVersionRow.uid)
    )
    rows = list(await session.scalars(query))
    return [row for row in rows if await fits(session, caller, row, base, wanted, rules)]


async def fits(
    session: AsyncSession,
    caller: Caller,
    row: DeploymentShapeVersionRow,
    base: ModelRow,
    wanted: Mapping[str, Any],
    rules: ShapeRules,
) -> bool:
    """Whether the shape says nothing against what is wanted, and an engine could be started with both."""
    if contradictions(row, wanted):
        return False
    settings = EngineSettings(**filled(settings_of(row), wanted))
    try:
        check_engine(session, settings, base, rules.regions)
        await find_draft(session, caller.account_id, settings, base)
    except ApiError:
        return False
    return True


def contradictions(row: DeploymentShapeVersionRow, wanted: Mapping[str, Any]) -> dict[str, str]:
    """The settings of which shape and request say something different, and what the shape says."""
    shape = settings_of(row)
    found = {
        field: shown(getattr(shape, field))
        for field in OF_THE_ENGINE
        if field in wanted and says(shape, field) and wanted[field] != getattr(shape, field)
    }
    for way in (way for way in WAYS_TO_GUESS if wanted.get(way)):
        if snapshot_of(row).disable_speculative_decoding:
            found[way] = "disableSpeculativeDecoding is true"
        for other in (other for other in WAYS_TO_GUESS if other != way and getattr(shape, other)):
            found[way] = f"{sent_as(other)} is {getattr(shape, other)}"
    return found


def says(shape: EngineSettings, field: str) -> bool:
    """What a shape leaves at its default is the request's to choose. But one without addons serves none."""
    return getattr(shape, field) != LEFT_OPEN[field] or field == "enable_addons"


def refuse_contradictions(row: DeploymentShapeVersionRow, wanted: Mapping[str, Any]) -> None:
    for field, said in contradictions(row, wanted).items():
        raise invalid(
            f"{sent_as(field)} is {shown(wanted[field])}, and {said} in {row.name}; "
            "leave it unset, name another shape, or set skipShapeValidation",
            sent_as(field),
        )


async def refuse_leaving_shape(session: AsyncSession, name: str, wanted: Mapping[str, Any]) -> None:
    """Hold a deployment to the version that it was made with, for as long as there is that version."""
    shape, _, version_id = name.partition(VERSIONS)
    parsed = parse_name(shape, "deploymentShapes", "", "deploymentShape")
    row = await session.scalar(
        select(DeploymentShapeVersionRow).where(
            DeploymentShapeVersionRow.account_id == parsed.account_id,
            DeploymentShapeVersionRow.shape_id == parsed.id,
            DeploymentShapeVersionRow.id == version_id,
        )
    )
    if row is not None:
        refuse_contradictions(row, wanted)


def settings_of(row: DeploymentShapeVersionRow) -> EngineSettings:
    return EngineSettings.of(snapshot_of(row))


def filled(
    shape: EngineSettings, wanted: Mapping[str, Any], otherwise: Mapping[str, Any] = LEFT_OPEN
) -> dict[str, Any]:
    """The settings as wanted; else the shape's; else, where that says nothing, as `otherwise`."""
    said = {field: getattr(shape, field) for field in OF_THE_ENGINE if says(shape, field)}
    settings = {**otherwise, **_other_ways(said), **said, **_other_ways(wanted), **wanted}
    if not settings["enable_addons"]:  # the room for addons that it had before goes with them
        settings["num_lora_device_cached"] = wanted.get("num_lora_device_cached", 0)
    return settings


def _other_ways(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a way to guess ahead takes the place of, as they exclude each other."""
    if not any(settings.get(way) for way in WAYS_TO_GUESS):
        return {}
    return {way: LEFT_OPEN[way] for way in WAYS_TO_GUESS}


def shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def stated(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a new deployment's request states: a default says nothing, as in protobuf."""
    return {field: value for field, value in settings_in(given).items() if value != LEFT_OPEN[field]}


async def choose_version(
    session: AsyncSession,
    caller: Caller,
    given: str,
    base: ModelRow,
    wanted: Mapping[str, Any],
    rules: ShapeRules,
) -> DeploymentShapeVersionRow:
    """The version that a deployment of `base` gets for `deploymentShape: given`; 400 when none goes."""
    if given == DEFAULT:
        found: Sequence[DeploymentShapeVersionRow] = await fitting_versions(
            session, caller, base, wanted, rules
        )
        if not found:
            raise failed_precondition(
                f"deploymentShape default: no validated deployment shape fits {base.name} as requested; "
                "make one, or leave deploymentShape unset"
            )
        return found[0]
    row = await named_version(session, caller, given, rules)
    if row.base_model_uid != base.uid:
        raise invalid(
            f"{row.name} is for {row.snapshot['baseModel']}, and baseModel is {base.name}", "deploymentShape"
        )
    if not rules.skip_validation:
        refuse_contradictions(row, wanted)
    return row
