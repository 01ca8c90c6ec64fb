from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.config import Settings
from controlplane.errors import already_exists, failed_precondition, invalid, not_found
from controlplane.names import ResourceName, check_id, generate_id, parse_name
from controlplane.resources.fine_tuning_jobs.defaults import defaults_for
from controlplane.resources.fine_tuning_jobs.schemas import SCHEDULERS, FineTuningJob
from controlplane.resources.fine_tuning_jobs.states import ACTIVE, CREATING, DELETING, mark
from controlplane.resources.models.service import find_readable, is_readable
from controlplane.resources.models.states import HF_BASE_MODEL, HF_PEFT_ADDON
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from controlplane.resources.uploads import READY
from controlplane.rest.access import find, insert

MAX_EXAMPLES = 3_000_000
"""Of examples × epochs, as the original has it."""
DEFAULT_EVALUATION_SPLIT = 0.15
FORMAT_OF_KIND = {"conversation": "CHAT", "text_completion": "COMPLETION"}


PLACEHOLDER = re.compile(r"{([^{}]+)}")


@dataclass(frozen=True)
class Inputs:
    """What a job reads: all READY, all the caller's or public."""

    base: ModelRow
    warm_start: ModelRow | None
    dataset: DatasetRow
    evaluation_dataset: DatasetRow | None


async def create_job(
    session: AsyncSession, settings: Settings, caller: Caller, job_id: str, body: FineTuningJob
) -> FineTuningJobRow:
    """A new job. Everything that can be known to fail later is refused now, by name."""
    given = body.given()
    kind, templates = chosen_kind(given)
    inputs = await find_inputs(session, caller, given, kind)
    if kind == "text_completion":
        check_placeholders(templates, inputs)
    chosen = resolve_settings(given, inputs, settings.max_lora_rank)
    row = FineTuningJobRow(
        account_id=caller.account_id,
        id=check_id(job_id or generate_id(32), "fineTuningJobId"),
        display_name=given.get("display_name", ""),
        created_by=caller.email,
        kind=kind,
        model_id=await free_model_id(session, caller.account_id, given.get("model_id", "")),
        base_model_uid=inputs.base.uid,
        warm_start_uid=inputs.warm_start.uid if inputs.warm_start else None,
        dataset_uid=inputs.dataset.uid,
        evaluation_dataset_uid=inputs.evaluation_dataset.uid if inputs.evaluation_dataset else None,
        settings={**chosen, "templates": templates},
        state=CREATING,
        status_message="waiting for a worker",
        next_reconcile_at=func.now(),
    )
    await insert(session, row, f"{row.name} or a running job for model {row.model_id}")
    return row


def chosen_kind(given: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The job's kind and its templates; exactly one must be given."""
    present = [kind for kind in FORMAT_OF_KIND if given.get(kind) is not None]
    if len(present) != 1:
        what = "none is" if not present else "both are"
        raise invalid(f"a job needs exactly one of conversation and textCompletion; {what} given")
    templates = given[present[0]].model_dump()
    if templates.get("jinja_template"):
        check_template(templates["jinja_template"])
    return present[0], templates


def check_template(template: str) -> None:
    """Refuse a template that does not parse. Whether it renders shows on the dataset's rows."""
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
            template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        )
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f" at line {line}" if line else ""
        raise invalid(
            f"the template does not parse{place}: {error.message}", "conversation.jinjaTemplate"
        ) from None


def check_placeholders(templates: dict[str, str], inputs: Inputs) -> None:
    """Refuse templates that name a field which some row of the dataset has not."""
    for dataset in filter(None, (inputs.dataset, inputs.evaluation_dataset)):
        known = dataset.report.get("fields", [])
        for part, template in templates.items():
            named = PLACEHOLDER.findall(template) or [template]
            for field in named:
                if field not in known:
                    raise invalid(
                        f"{part} names the field {field!r}, which not every row of {dataset.name} has; "
                        f"all rows have {', '.join(known) or 'none'}",
                        f"textCompletion.{part}",
                    )


async def find_inputs(session: AsyncSession, caller: Caller, given: dict[str, Any], kind: str) -> Inputs:
    base, warm_start = await find_start(session, caller, given)
    named = {given.get("dataset", ""), *(ref.dataset for ref in given.get("datasets", []))} - {""}
    if not named:
        raise invalid("dataset is required", "dataset")
    if len(named) > 1:
        raise invalid("dataset and datasets name different datasets, and a job reads one", "datasets")
    wanted = named.pop()
    dataset = await find_dataset(session, caller, wanted, "dataset", kind)
    evaluation = given.get("evaluation_dataset", "")
    held_out = (
        await find_dataset(session, caller, evaluation, "evaluationDataset", kind) if evaluation else None
    )
    return Inputs(base, warm_start, dataset, held_out)


async def find_start(
    session: AsyncSession, caller: Caller, given: dict[str, Any]
) -> tuple[ModelRow, ModelRow | None]:
    """The base model to tune, and the addon to go on from when there is one."""
    base, warm = given.get("base_model", ""), given.get("warm_start_from", "")
    if bool(base) == bool(warm):
        raise invalid("a job needs exactly one of baseModel and warmStartFrom", "baseModel")
    name = parse_name(base or warm, "models", caller.account_id, "baseModel" if base else "warmStartFrom")
    row = await find_readable(session, caller, name)
    if row.state != READY:
        raise failed_precondition(f"model {row.name} is not READY: {row.status_message or row.state}")
    if warm:
        if row.kind != HF_PEFT_ADDON or row.base_model_uid is None:
            raise invalid(f"warmStartFrom {row.name} is not a LoRA addon", "warmStartFrom")
        base_row = await session.get_one(ModelRow, row.base_model_uid)
        if not is_readable(base_row, caller.account_id):
            raise invalid(f"warmStartFrom {row.name}: its base model is not open to you", "warmStartFrom")
        return base_row, row
    if row.kind != HF_BASE_MODEL:
        raise invalid(f"baseModel {row.name} is an addon; use warmStartFrom to go on from it", "baseModel")
    if not row.facts.get("supports_lora"):
        raise invalid(
            f"{row.name} is not tunable: the engine serves no addons on {row.facts.get('architecture')}",
            "baseModel",
        )
    return row, None


async def find_dataset(
    session: AsyncSession, caller: Caller, wanted: str, field: str, kind: str
) -> DatasetRow:
    name = parse_name(wanted, "datasets", caller.account_id, field)
    if name.account_id != caller.account_id:
        raise not_found(str(name))
    row = await find(session, DatasetRow, name)
    if row.state != READY:
        raise failed_precondition(f"dataset {row.name} is not READY: {row.status_message or row.state}")
    if row.format != FORMAT_OF_KIND[kind]:
        raise invalid(
            f"dataset {row.name} has format {row.format}; a {kind} job reads {FORMAT_OF_KIND[kind]}", field
        )
    return row


def resolve_settings(given: dict[str, Any], inputs: Inputs, max_lora_rank: int) -> dict[str, Any]:
    """The settings that the job runs with: what was given, else the base model's defaults."""
    base = inputs.base
    own = defaults_for(base.id, base.facts.get("parameter_count", 0), base.context_length)
    rank = given.get("lora_rank") or (inputs.warm_start.facts["r"] if inputs.warm_start else own.lora_rank)
    chosen = {
        "base_model": base.name if inputs.warm_start is None else "",
        "warm_start_from": inputs.warm_start.name if inputs.warm_start else "",
        "dataset": inputs.dataset.name,
        "evaluation_dataset": inputs.evaluation_dataset.name if inputs.evaluation_dataset else "",
        "epochs": given.get("epochs") or own.epochs,
        "learning_rate": given.get("learning_rate") or own.learning_rate,
        "lr_scheduler_type": given.get("lr_scheduler_type") or "cosine",
        "warmup_steps": given.get("warmup_steps", 0),
        "lora_rank": rank,
        "lora_alpha": given.get("lora_alpha") or 2 * rank,
        "lora_target_modules": given.get("lora_target_modules", []),
        "batch_size": given.get("batch_size") or own.batch_size,
        "micro_batch_size": given.get("micro_batch_size", 0),
        "cutoff_length": given.get("cutoff_length") or own.cutoff_length,
        "early_stop": given.get("early_stop", False),
        "evaluation": given.get("evaluation", False) or bool(inputs.evaluation_dataset),
        "evaluation_split": given.get("evaluation_split") or DEFAULT_EVALUATION_SPLIT,
    }
    check_settings(chosen, inputs, max_lora_rank)
    refuse_idle_split(chosen)
    return chosen


def refuse_idle_split(chosen: dict[str, Any]) -> None:
    """Rows are held out only for an evaluation that has no dataset of its own."""
    used = chosen["evaluation"] and not chosen["evaluation_dataset"]
    if chosen["evaluation_split"] != DEFAULT_EVALUATION_SPLIT and not used:
        why = "evaluationDataset is evaluated on" if chosen["evaluation"] else "set evaluation to evaluate"
        raise invalid(f"evaluationSplit has no effect: {why}", "evaluationSplit")


def check_settings(chosen: dict[str, Any], inputs: Inputs, max_lora_rank: int) -> None:
    if chosen["lr_scheduler_type"] not in SCHEDULERS:
        raise invalid(f"lrSchedulerType must be one of {', '.join(SCHEDULERS)}", "lrSchedulerType")
    batch, micro, rank = chosen["batch_size"], chosen["micro_batch_size"], chosen["lora_rank"]
    if batch & (batch - 1):
        raise invalid(f"batchSize must be a power of 2, and {batch} is not", "batchSize")
    if micro and batch % micro:
        raise invalid(f"batchSize {batch} is not a multiple of microBatchSize {micro}", "microBatchSize")
    if rank > max_lora_rank:
        raise invalid(f"loraRank {rank} is more than the engines' {max_lora_rank}", "loraRank")
    if inputs.warm_start and rank != inputs.warm_start.facts["r"]:
        raise invalid(f"loraRank must stay {inputs.warm_start.facts['r']}, the addon's own", "loraRank")
    limit = inputs.base.context_length
    if limit and chosen["cutoff_length"] > limit:
        raise invalid(f"cutoffLength is more than the model's context of {limit}", "cutoffLength")
    if chosen["early_stop"] and not chosen["evaluation"]:
        raise invalid("earlyStop needs evaluation: it stops when the evaluation loss rises", "earlyStop")
    seen = math.ceil(inputs.dataset.example_count * chosen["epochs"])
    if seen > MAX_EXAMPLES:
        raise invalid(f"examples × epochs is {seen:,}, more than {MAX_EXAMPLES:,}", "epochs")


async def free_model_id(session: AsyncSession, account_id: str, wanted: str) -> str:
    model_id = check_id(wanted, "modelId") if wanted else f"ft-{generate_id(12)}"
    taken = await session.scalar(
        select(ModelRow.uid).where(ModelRow.account_id == account_id, ModelRow.id == model_id)
    )
    if taken is not None:
        raise already_exists(f"modelId: accounts/{account_id}/models/{model_id}")
    return model_id


async def delete_job(session: AsyncSession, name: ResourceName) -> FineTuningJobRow:
    """Stop the job when it runs and forget it; the model it made stays."""
    row = await find(session, FineTuningJobRow, name, lock=True)
    if row.state != DELETING:
        running = row.state in ACTIVE
        mark(row, DELETING, message="stopping its trainer" if running else "removing its files")
    row.next_reconcile_at, row.lease_claims = func.now(), 0
    return row
