"""The life of a job of any collection: planned, stored, cancelled, paused, resumed, deleted."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.config import Settings
from controlplane.db import now
from controlplane.errors import already_exists, failed_precondition, not_found
from controlplane.names import ResourceName, check_id, generate_id, parse_name
from controlplane.resources.fine_tuning_jobs.hyperparameters import resolve_settings
from controlplane.resources.fine_tuning_jobs.inputs import find_inputs
from controlplane.resources.fine_tuning_jobs.lineage import lineage_of
from controlplane.resources.fine_tuning_jobs.queueing import join_queue, turn
from controlplane.resources.fine_tuning_jobs.states import (
    CANCELLABLE,
    CANCELLING,
    CREATING,
    DELETING,
    FAILED,
    PAUSABLE,
    PAUSED,
    PAUSING,
    PLACED,
    RESUMING,
    can_resume,
    job_state,
    mark,
)
from controlplane.resources.fine_tuning_jobs.wandb import kept_wandb
from controlplane.resources.fine_tuning_jobs.wanted import Wanted
from controlplane.resources.models.service import is_readable
from controlplane.resources.quotas.service import allow_job
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from controlplane.resources.uploads import add_garbage
from controlplane.rest.access import find, insert


async def plan_job(
    session: AsyncSession, settings: Settings, caller: Caller, wanted: Wanted
) -> FineTuningJobRow:
    """A job that is not stored yet. Everything that can be known to fail later is refused now, by name."""
    inputs = await find_inputs(session, caller, wanted)
    chosen = resolve_settings(wanted, inputs, settings.max_lora_rank)
    priority = wanted.given.get("priority", 0)
    wandb, wandb_key = kept_wandb(wanted.wandb, settings)
    return FineTuningJobRow(
        account_id=caller.account_id,
        collection=wanted.collection,
        id=check_id(wanted.job_id or generate_id(32), f"{wanted.collection[:-1]}Id"),
        display_name=wanted.given.get("display_name", ""),
        created_by=caller.email,
        kind=inputs.kind,
        model_id=await free_model_id(session, caller.account_id, wanted),
        base_model_uid=inputs.base.uid,
        warm_start_uid=inputs.warm_start.uid if inputs.warm_start else None,
        dataset_uid=inputs.dataset.uid,
        evaluation_dataset_uid=inputs.evaluation_dataset.uid if inputs.evaluation_dataset else None,
        settings={
            **chosen,
            "templates": wanted.templates[inputs.kind],
            "tuned_model": inputs.base.name,
            "dataset_tokens": inputs.dataset.estimated_token_count,
            "lineage": lineage_of(
                base_model=inputs.base,
                warm_start=inputs.warm_start,
                dataset=inputs.dataset,
                evaluation_dataset=inputs.evaluation_dataset,
            ),
            **wandb,
        },
        wandb_api_key=wandb_key,
        progress={},
        priority=priority,
        queue_time=turn(now(), priority),
        state=CREATING,
        status_message="waiting for a worker",
        next_reconcile_at=func.now(),
    )


async def free_model_id(session: AsyncSession, account_id: str, wanted: Wanted) -> str:
    """The id of the model that the job is to make; 409 when there is a model of that name."""
    field, named = wanted.word("model_id"), wanted.given.get("model_id", "")
    if not named:
        return f"ft-{generate_id(12)}"
    name = parse_name(named, "models", account_id, field)
    if name.account_id != account_id:
        raise not_found(str(name))
    taken = await session.scalar(
        select(ModelRow.uid).where(ModelRow.account_id == account_id, ModelRow.id == name.id)
    )
    if taken is not None:
        raise already_exists(f"{field}: {name}")
    return name.id


async def store_job(session: AsyncSession, row: FineTuningJobRow) -> None:
    """Add the job; 409 when its id is taken, or when another job is to make a model of the same name."""
    await allow_job(session, row.account_id)
    await insert(session, row, f"{row.name} or a running job for model {row.model_id}")


def delete_job(row: FineTuningJobRow) -> None:
    """Stop the job when it runs and forget it; the model it made stays."""
    if row.state != DELETING:
        running = row.state in PLACED
        mark(row, DELETING, message="stopping its trainer" if running else "removing its files")
    call_worker(row)


def cancel_job(row: FineTuningJobRow) -> None:
    """Stop the job; what it has learned stays in its last checkpoint. Cancelling twice is cancelling once."""
    if row.state == CANCELLING:
        return
    if row.state not in CANCELLABLE:
        raise failed_precondition(f"cannot cancel job in state: {job_state(row.state)}")
    mark(row, CANCELLING, code="CANCELLED", message="stopping its trainer")
    call_worker(row)


def pause_job(row: FineTuningJobRow) -> None:
    """Stop the job for a while, after a checkpoint; its place is another's. Pausing twice is pausing once."""
    if row.state in (PAUSING, PAUSED):
        return
    if row.state not in PAUSABLE:
        raise failed_precondition(f"cannot pause job in state: {job_state(row.state)}")
    mark(row, PAUSING, message="pausing: its trainer writes a checkpoint and stops")
    call_worker(row)


async def find_to_resume(session: AsyncSession, name: ResourceName) -> FineTuningJobRow:
    """The job, locked, and what it reads, kept. In this order: a delete of that comes to the job last."""
    seen = await find(session, FineTuningJobRow, name)
    for table, uids in (
        (ModelRow, (seen.base_model_uid, seen.warm_start_uid)),
        (DatasetRow, (seen.dataset_uid, seen.evaluation_dataset_uid)),
    ):
        await session.execute(
            select(table.uid).where(table.uid.in_(uids)).with_for_update(read=True, key_share=True)
        )
    session.expunge(seen)
    return await find(session, FineTuningJobRow, name, lock=True)


async def resume_job(session: AsyncSession, row: FineTuningJobRow) -> None:
    """Send a job that was paused or cancelled or has failed on its way again, from its last checkpoint."""
    await refuse_resuming(session, row)
    await allow_job(session, row.account_id)
    await forget_model(session, row)
    mark(row, RESUMING, message="waiting for a worker to go on from its last checkpoint")
    join_queue(row)
    row.crashes, row.crash_step, row.result, row.end_time = 0, 0, {}, None
    call_worker(row)
    taken = f"a running job for model {row.model_id}"
    try:
        await session.flush()
    except IntegrityError:
        raise already_exists(taken) from None


async def refuse_resuming(session: AsyncSession, row: FineTuningJobRow) -> None:
    """400 for a job that is not over, that ended well, or that would only fail again."""
    if not can_resume(row.state, row.status_code, row.reason):
        why = f": it would fail again: {row.status_message}" if row.state == FAILED else ""
        raise failed_precondition(f"cannot resume job in state: {job_state(row.state)}{why}")
    chosen = row.settings
    needed = (
        (ModelRow, row.base_model_uid, chosen["base_model"] or chosen["warm_start_from"]),
        (ModelRow, row.warm_start_uid, chosen["warm_start_from"]),
        (DatasetRow, row.dataset_uid, chosen["dataset"]),
        (DatasetRow, row.evaluation_dataset_uid, chosen["evaluation_dataset"]),
    )
    for table, uid, name in needed:
        found = await session.get(table, uid) if uid else None
        # A model that was taken back from others is to them as if it was deleted.
        if name and (
            found is None or (isinstance(found, ModelRow) and not is_readable(found, row.account_id))
        ):
            raise failed_precondition(f"cannot resume the job: {name}, which it reads, is not there any more")


async def forget_model(session: AsyncSession, row: FineTuningJobRow) -> None:
    """A model that was to be made, or was made and deleted, is made anew, in a place of its own."""
    uid = row.output_model_uid
    if uid is not None and await session.get(ModelRow, uid) is None:
        add_garbage(session, f"accounts/{row.account_id}/models/{uid}/")
        row.output_model_uid = None


def call_worker(row: FineTuningJobRow) -> None:
    row.next_reconcile_at, row.lease_claims = func.now(), 0
