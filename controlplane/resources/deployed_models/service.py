from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.config import Settings
from controlplane.errors import ApiError, Code, failed_precondition, invalid, not_found
from controlplane.names import ResourceName, generate_id, parse_name
from controlplane.permissions import PERMISSIONS
from controlplane.resources.deployed_models.schemas import (
    DeployedModel,
    deployed_model_message,
)
from controlplane.resources.deployed_models.states import DEPLOYING, UNDEPLOYING, mark
from controlplane.resources.deployments.states import DELETED, DELETING
from controlplane.resources.models.schemas import DeployedModelRef
from controlplane.resources.models.service import find_readable
from controlplane.resources.models.states import BASE_KINDS
from controlplane.resources.quotas.service import claim_addon
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow
from controlplane.rest.access import CALLER, find, insert, refuse_others_rows
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes

READY = "READY"
ID_HASH_LENGTH = 8
DESCRIBING = ("display_name", "description", "public")


async def create_deployed_model(
    session: AsyncSession, settings: Settings, caller: Caller, body: DeployedModel
) -> DeployedModelRow:
    """Load a model on a deployment: recorded here, done by a worker."""
    given = body.given()
    deployment = await wanted_deployment(session, caller, given.get("deployment", ""))
    if not given.get("model"):
        raise invalid("model is required", "model")
    name = parse_name(given["model"], "models", caller.account_id, "model")
    model = await lock_model(session, await find_readable(session, caller, name, keep=True))
    base = await session.get_one(ModelRow, deployment.base_model_uid)
    check_fits(model, deployment, base, settings.max_lora_rank)
    row = await add_deployed_model(session, deployment, model, caller, given)
    deployment.next_reconcile_at = func.now()
    return row


async def wanted_deployment(session: AsyncSession, caller: Caller, given: str) -> DeploymentRow:
    """The deployment, one of the caller's own, locked so that it is not deleted meanwhile."""
    if not given:
        raise invalid(
            "deployment is required: models are served by deployments, there is no serverless serving",
            "deployment",
        )
    name = parse_name(given, "deployments", caller.account_id, "deployment")
    if name.account_id != caller.account_id:
        raise not_found(str(name))
    row = await find(session, DeploymentRow, name, lock=True)
    if row.state == DELETED:
        raise not_found(str(name))
    if row.state == DELETING:
        raise failed_precondition(f"{row.name} is being deleted")
    return row


async def lock_model(session: AsyncSession, row: ModelRow) -> ModelRow:
    """The model, kept as it is until the transaction ends.

    Who changes which deployed model is a model's default holds this lock. It is taken after a
    deployment's and before a deployed model's.
    """
    query = select(ModelRow).where(ModelRow.uid == row.uid).with_for_update(key_share=True)
    locked = await session.scalar(query.execution_options(populate_existing=True))
    if locked is None:
        raise not_found(row.name)
    return locked


def check_fits(model: ModelRow, deployment: DeploymentRow, base: ModelRow, max_rank: int) -> None:
    """Refuse a model that the deployment's engines could not serve."""
    if model.state != READY:
        raise failed_precondition(f"{model.name} is {model.state}, not READY")
    if model.kind in BASE_KINDS:
        if model.uid != base.uid:
            raise failed_precondition(f"{deployment.name} serves {base.name}, not {model.name}")
        return
    if not deployment.enable_addons:
        raise failed_precondition(f"{deployment.name} takes no addons; set its enableAddons first")
    if model.base_model_uid != base.uid:
        raise failed_precondition(
            f"{model.name} is an addon of another base model than {base.name}, which {deployment.name} serves"
        )
    rank = model.facts.get("r", 0)
    if rank > max_rank:
        raise failed_precondition(f"{model.name} has rank {rank}, and engines take ranks up to {max_rank}")


async def add_deployed_model(
    session: AsyncSession, deployment: DeploymentRow, model: ModelRow, caller: Caller, given: dict[str, Any]
) -> DeployedModelRow:
    """A new deployed model of a model that is locked; the first one of a model is its default."""
    await refuse_twice(session, deployment, model)
    if model.uid != deployment.base_model_uid:
        await claim_addon(session, deployment.account_id)
    current = await default_of(session, deployment.account_id, model.uid)
    row = DeployedModelRow(
        account_id=deployment.account_id,
        id=f"{model.id[: 62 - ID_HASH_LENGTH].rstrip('-')}-{generate_id(ID_HASH_LENGTH)}",
        created_by=caller.email,
        model_uid=model.uid,
        deployment_uid=deployment.uid,
        default=current is None,
        state=DEPLOYING,
        status_message="waiting for a worker to load it",
        **{field: given[field] for field in DESCRIBING if field in given},
    )
    await insert(session, row, row.name)
    if given.get("default"):
        await make_default(session, row, current)
    return row


async def refuse_twice(session: AsyncSession, deployment: DeploymentRow, model: ModelRow) -> None:
    found = await session.scalar(
        select(DeployedModelRow).where(
            DeployedModelRow.deployment_uid == deployment.uid, DeployedModelRow.model_uid == model.uid
        )
    )
    if found is not None:
        ending = "; it is being undeployed, try again shortly" if found.state == UNDEPLOYING else ""
        raise ApiError(
            Code.ALREADY_EXISTS,
            f"{model.name} is already deployed on {deployment.name} as {found.name}{ending}",
        )


async def default_of(session: AsyncSession, account_id: str, model_uid: uuid.UUID) -> DeployedModelRow | None:
    """The account's default deployed model of a model."""
    found: DeployedModelRow | None = await session.scalar(
        select(DeployedModelRow).where(
            DeployedModelRow.account_id == account_id,
            DeployedModelRow.model_uid == model_uid,
            DeployedModelRow.default,
        )
    )
    return found


async def make_default(
    session: AsyncSession, row: DeployedModelRow, current: DeployedModelRow | None
) -> None:
    """Let bare model names route here. The caller holds the model's lock.

    403 when that changes somebody else's deployed model, for a role that may not.
    """
    if current is not None and current is not row:
        refuse_others_rows(changing(session.info.get(CALLER)), current, current.name)
        current.default = False
        await session.flush()  # first: an account has one default of a model at any moment
    row.default = True
    await session.flush()


def changing(caller: Caller | None) -> Caller | None:
    """The caller who changes what is there, also while creating something."""
    return replace(caller, grant=PERMISSIONS["resources.change"].grant(caller.role)) if caller else None


async def find_locked(session: AsyncSession, name: ResourceName) -> DeployedModelRow:
    """The deployed model; its deployment and its model are locked too, in the order that all keep."""
    seen = await find(session, DeployedModelRow, name)
    await session.execute(
        select(DeploymentRow.uid).where(DeploymentRow.uid == seen.deployment_uid).with_for_update()
    )
    await lock_model(session, await session.get_one(ModelRow, seen.model_uid))
    session.expunge(seen)
    return await find(session, DeployedModelRow, name, lock=True)


async def update_deployed_model(
    session: AsyncSession, name: ResourceName, body: DeployedModel, mask: str
) -> DeployedModelRow:
    row = await find_locked(session, name)
    shown = (await messages(session, [row]))[0]
    changed = changes(session, body, mask, shown)
    for field, collection in (("model", "models"), ("deployment", "deployments")):
        wanted = changed.get(field)
        now_it_is = getattr(shown, field)
        if wanted is not None and str(parse_name(wanted, collection, row.account_id, field)) != now_it_is:
            raise invalid(f"{field} of a deployed model cannot be changed; it is {now_it_is}", field)
    for field in DESCRIBING:
        setattr(row, field, changed.get(field, getattr(row, field)))
    if "default" in changed:
        await change_default(session, row, bool(changed["default"]))
    await session.flush()
    return row


async def change_default(session: AsyncSession, row: DeployedModelRow, wanted: bool) -> None:
    if not wanted:
        raise failed_precondition(
            f"{row.name} is the default of its model; make another deployed model the default instead"
        )
    if row.state == UNDEPLOYING:
        raise failed_precondition(f"{row.name} is being undeployed")
    await make_default(session, row, await default_of(session, row.account_id, row.model_uid))


async def delete_deployed_model(session: AsyncSession, name: ResourceName) -> DeployedModelRow:
    """Have a model unloaded. The row goes once no replica serves it any more."""
    row = await find_locked(session, name)
    refuse_other_version(session, (await messages(session, [row]))[0])
    if row.default:
        await refuse_leaving_no_default(session, row)
    mark(row, UNDEPLOYING, message="it is being unloaded")
    deployment = await session.get_one(DeploymentRow, row.deployment_uid)
    deployment.next_reconcile_at = func.now()
    return row


async def refuse_leaving_no_default(session: AsyncSession, row: DeployedModelRow) -> None:
    others = await session.scalars(
        select(DeployedModelRow)
        .where(
            DeployedModelRow.account_id == row.account_id,
            DeployedModelRow.model_uid == row.model_uid,
            DeployedModelRow.uid != row.uid,
            DeployedModelRow.state != UNDEPLOYING,
        )
        .order_by(DeployedModelRow.id)
        .limit(1)
    )
    other = others.first()
    if other is not None:
        raise failed_precondition(
            f"cannot delete {row.name}: it is the default of its model, which is deployed elsewhere too; "
            f"make {other.name} the default first"
        )


async def messages(session: AsyncSession, rows: Sequence[DeployedModelRow]) -> list[DeployedModel]:
    """These deployed models as the API shows them."""
    models = await _names(session, ModelRow, {row.model_uid for row in rows})
    deployments = await _names(session, DeploymentRow, {row.deployment_uid for row in rows})
    return [
        deployed_model_message(row, models[row.model_uid], deployments[row.deployment_uid]) for row in rows
    ]


async def deployed_model_refs(
    session: AsyncSession, model_uid: uuid.UUID, account_id: str
) -> list[DeployedModelRef]:
    """Where a model is deployed, as far as the account may know: its own deployed models and public ones."""
    query = (
        select(DeployedModelRow, DeploymentRow)
        .join(DeploymentRow, DeploymentRow.uid == DeployedModelRow.deployment_uid)
        .where(
            DeployedModelRow.model_uid == model_uid,
            or_(DeployedModelRow.account_id == account_id, DeployedModelRow.public),
        )
        .order_by(DeployedModelRow.default.desc(), DeployedModelRow.id)
    )
    return [
        DeployedModelRef(
            name=row.name,
            deployment=deployment.name,
            state=row.state,
            default=row.default,
            public=row.public,
        )
        for row, deployment in await session.execute(query)
    ]


async def _names(session: AsyncSession, table: Any, uids: set[uuid.UUID]) -> dict[uuid.UUID, str]:
    found = await session.scalars(select(table).where(table.uid.in_(uids)))
    return {row.uid: row.name for row in found}
