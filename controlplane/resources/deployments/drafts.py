"""Draft models: the smaller ones that guess ahead for a deployment's base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.checks.architectures import GENERATE, architectures
from controlplane.errors import ApiError, failed_precondition, invalid
from controlplane.names import parse_name
from controlplane.resources.deployments.engine import Settings, check_speculation
from controlplane.resources.models.service import find_readable_by
from controlplane.resources.models.states import BASE_KINDS
from controlplane.resources.tables import DeploymentRow, ModelRow
from controlplane.resources.uploads import READY
from controlplane.sizing import LONG_PROMPT_FACTOR, ModelSizes

FIELD = "draftModel"


def in_full(settings: Mapping[str, Any], account_id: str) -> dict[str, Any]:
    """The settings with the draft model's full name, where they name one."""
    if not settings.get("draft_model"):
        return dict(settings)
    return {**settings, "draft_model": str(parse_name(settings["draft_model"], "models", account_id, FIELD))}


def with_default_draft(settings: dict[str, Any], base: ModelRow) -> dict[str, Any]:
    """The settings of a new deployment: what they leave open of guessing ahead is the base model's to say."""
    draft = settings["draft_model"] or base.default_draft_model
    if not draft or settings["ngram_speculation_length"]:
        return settings
    count = settings["draft_token_count"] or base.default_draft_token_count
    return {**settings, "draft_model": draft, "draft_token_count": count}


async def chosen_draft(
    session: AsyncSession, row: DeploymentRow, base: ModelRow, given: dict[str, Any]
) -> ModelRow | None:
    """The model that guesses ahead for a new deployment, noted in its row."""
    if given.get("draft_model") or row.draft_model != base.default_draft_model:
        draft = await find_draft(session, row.account_id, row, base)
    else:
        whose = f"the defaultDraftModel of {base.name}"
        how = "set disableSpeculativeDecoding to go without, or name another draftModel"
        draft = await find_unnamed_draft(session, row.account_id, row, base, whose=whose, how=how)
    row.draft_model_uid = draft.uid if draft else None
    return draft


async def draft_of(session: AsyncSession, row: DeploymentRow) -> ModelRow | None:
    return await session.get(ModelRow, row.draft_model_uid) if row.draft_model_uid else None


async def find_draft(
    session: AsyncSession, account_id: str, settings: Settings, base: ModelRow
) -> ModelRow | None:
    """The draft model of the settings, if any: READY, and able to guess for the base. It stays there until
    the transaction ends."""
    if not settings.draft_model:
        return None
    check_speculation(settings, base)
    name = parse_name(settings.draft_model, "models", account_id, FIELD)
    draft = await find_readable_by(session, account_id, name, keep=True)
    split = settings.accelerator_count or (LONG_PROMPT_FACTOR if settings.long_prompt else 1)
    check_draft(draft, base, split)
    return draft


async def find_unnamed_draft(
    session: AsyncSession, account_id: str, settings: Settings, base: ModelRow, *, whose: str, how: str
) -> ModelRow | None:
    """The same where the request does not name it: 400 that says whose it is, and how to go on."""
    try:
        return await find_draft(session, account_id, settings, base)
    except ApiError as error:
        raise failed_precondition(
            f"{settings.draft_model}, {whose}, cannot be used: {error.message}; {how}"
        ) from None


def check_draft(draft: ModelRow, base: ModelRow, accelerators: int) -> None:
    """Refuse a model that cannot guess for the base."""
    if draft.kind not in BASE_KINDS:
        raise invalid(f"{draft.name} is an addon, and draftModel is a base model", FIELD)
    if draft.uid == base.uid:
        raise invalid(f"draftModel is {base.name} itself, which guesses no faster than it answers", FIELD)
    if draft.state != READY:
        raise failed_precondition(
            f"draftModel {draft.name} is {draft.state}, not READY: {draft.status_message or 'no files'}"
        )
    if why := _why_not(draft):
        raise invalid(f"draftModel {draft.name} {why}", FIELD)
    if reads_more_than_text(base):
        raise invalid(
            f"{base.name} takes images or sounds, beside which the engine lets no draftModel guess", FIELD
        )
    own, wanted = vocabulary(draft), vocabulary(base)
    if own and wanted and own != wanted:
        raise invalid(
            f"draftModel {draft.name} has a vocabulary of {own} tokens and {base.name} one of {wanted}: "
            "what one guesses the other could not read",
            FIELD,
        )
    config = draft.facts.get("config")
    if config and accelerators > 1 and not ModelSizes.of(0, config).splits_over(accelerators):
        heads = ModelSizes.of(0, config).heads
        raise invalid(
            f"draftModel {draft.name} has {heads} attention heads, which cannot be split over "
            f"{accelerators} GPUs",
            FIELD,
        )


def _why_not(draft: ModelRow) -> str:
    known = architectures().get(draft.facts.get("architecture", ""))
    if draft.task != GENERATE:
        return "writes no text, so that it has nothing to guess with"
    if known and known.recurrent:
        return f"is a {known.name}, whose state cannot take back what it has guessed"
    if reads_more_than_text(draft):
        return "takes images or sounds; one that reads only text is needed"
    return ""


def reads_more_than_text(model: ModelRow) -> bool:
    return bool(model.supports_image_input or model.facts.get("supports_audio_input"))


def vocabulary(model: ModelRow) -> int:
    """How many tokens the model knows; 0 when its files have not told."""
    return int(model.facts.get("vocab_size") or 0)
