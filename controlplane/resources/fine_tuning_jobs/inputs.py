"""What a job reads: found, READY, the caller's own or public, and of the kind that the job needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.checks.templates import too_long
from controlplane.errors import failed_precondition, invalid, not_found
from controlplane.names import parse_name
from controlplane.resources.fine_tuning_jobs.wanted import Wanted
from controlplane.resources.models.service import find_readable, is_readable
from controlplane.resources.models.states import EMBEDDING_MODEL, HF_BASE_MODEL, HF_PEFT_ADDON
from controlplane.resources.tables import DatasetRow, ModelRow
from controlplane.resources.uploads import READY
from controlplane.rest.access import find

FORMAT_OF_KIND = {
    "conversation": "CHAT",
    "text_completion": "COMPLETION",
    "text_classification": "COMPLETION",
    "preference": "PREFERENCE",
}
PLACEHOLDER = re.compile(r"{([^{}]+)}")


@dataclass(frozen=True)
class Inputs:
    kind: str
    """`conversation`, `text_completion`, `text_classification` or `preference`."""
    base: ModelRow
    warm_start: ModelRow | None
    dataset: DatasetRow
    evaluation_dataset: DatasetRow | None


async def find_inputs(session: AsyncSession, caller: Caller, wanted: Wanted) -> Inputs:
    """The job's inputs, or the refusal of the first that cannot be used."""
    base, warm_start = await find_start(session, caller, wanted)
    formats = [FORMAT_OF_KIND[kind] for kind in wanted.templates]
    dataset = await find_dataset(session, caller, wanted, "dataset", formats)
    held_out = None
    if wanted.given.get("evaluation_dataset"):
        held_out = await find_dataset(session, caller, wanted, "evaluation_dataset", [dataset.format])
    kind = next(kind for kind in wanted.templates if FORMAT_OF_KIND[kind] == dataset.format)
    inputs = Inputs(kind, base, warm_start, dataset, held_out)
    check_templates(wanted, inputs)
    return inputs


async def find_start(
    session: AsyncSession, caller: Caller, wanted: Wanted
) -> tuple[ModelRow, ModelRow | None]:
    """The base model to tune, and the addon to go on from when there is one."""
    base, warm = wanted.given.get("base_model", ""), wanted.given.get("warm_start_from", "")
    if bool(base) == bool(warm):
        raise invalid("a job needs exactly one of baseModel and warmStartFrom", "baseModel")
    name = parse_name(base or warm, "models", caller.account_id, "baseModel" if base else "warmStartFrom")
    row = await find_readable(session, caller, name, keep=True)
    if row.state != READY:
        raise failed_precondition(f"model {row.name} is not READY: {row.status_message or row.state}")
    if warm:
        if row.kind != HF_PEFT_ADDON or row.base_model_uid is None:
            raise invalid(f"warmStartFrom {row.name} is not a LoRA addon", "warmStartFrom")
        kept = {"read": True, "key_share": True}
        base_row = await session.get_one(
            ModelRow, row.base_model_uid, with_for_update=kept, populate_existing=True
        )
        if not is_readable(base_row, caller.account_id):
            raise invalid(f"warmStartFrom {row.name}: its base model is not open to you", "warmStartFrom")
        return base_row, row
    if row.kind != HF_BASE_MODEL:
        if row.kind == EMBEDDING_MODEL:
            raise invalid(f"baseModel {row.name} embeds text; only what writes text is tuned", "baseModel")
        raise invalid(f"baseModel {row.name} is an addon; use warmStartFrom to go on from it", "baseModel")
    if not row.facts.get("supports_lora"):
        raise invalid(
            f"{row.name} is not tunable: the engine serves no addons on {row.facts.get('architecture')}",
            "baseModel",
        )
    return row, None


async def find_dataset(
    session: AsyncSession, caller: Caller, wanted: Wanted, setting: str, formats: list[str]
) -> DatasetRow:
    field = wanted.word(setting)
    if not wanted.given.get(setting):
        raise invalid(f"{field} is required", field)
    name = parse_name(wanted.given[setting], "datasets", caller.account_id, field)
    if name.account_id != caller.account_id:
        raise not_found(str(name))
    row = await find(session, DatasetRow, name)
    if row.state != READY:
        raise failed_precondition(f"dataset {row.name} is not READY: {row.status_message or row.state}")
    if row.format not in formats:
        raise invalid(
            f"dataset {row.name} has format {row.format}; this job reads {' or '.join(formats)}", field
        )
    return row


def check_templates(wanted: Wanted, inputs: Inputs) -> None:
    """Refuse templates that cannot work. Whether a chat template renders shows on the dataset's rows."""
    templates = wanted.templates[inputs.kind]
    if templates.get("jinja_template"):
        check_chat_template(templates["jinja_template"], wanted.word("jinja_template"))
    if inputs.kind in ("text_completion", "text_classification"):
        check_placeholders(wanted, templates, inputs.dataset)
        if inputs.evaluation_dataset:
            check_placeholders(wanted, templates, inputs.evaluation_dataset, "evaluation_dataset")


def check_chat_template(template: str, field: str) -> None:
    if reason := too_long(template):
        raise invalid(f"the template {reason}", field)
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
            template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        )
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f" at line {line}" if line else ""
        raise invalid(f"the template does not parse{place}: {error.message}", field) from None


def check_placeholders(
    wanted: Wanted, templates: dict[str, str], dataset: DatasetRow, at_fault: str = ""
) -> None:
    """Refuse templates that name a field which some row of the dataset has not.

    `at_fault`: the setting that the refusal names; by default the template.
    """
    known = dataset.report.get("fields", [])
    for part, template in templates.items():
        # Of a classification they are fields and nothing else.
        named = PLACEHOLDER.findall(template) if part.endswith("_template") else []
        for name in named or [template]:
            if name not in known:
                raise invalid(
                    f"not every row of {dataset.name} has the field {name!r} that the job reads; "
                    f"all rows have {', '.join(known) or 'none'}",
                    wanted.word(at_fault or part),
                )
