from __future__ import annotations

from dataclasses import replace

from sqlalchemy import and_, false, func, select, true
from sqlalchemy.orm import aliased, defer
from sqlalchemy.sql import ColumnElement

from controlplane.resources.deployments.enums import PRECISIONS
from controlplane.resources.fine_tuning_jobs.lineage import Lineage, lineage_fields
from controlplane.resources.models.schemas import Model
from controlplane.resources.models.states import BASE_KINDS, CHECKPOINT_FORMATS, HF_BASE_MODEL, KINDS
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.uploads import READY
from controlplane.rest.filters.fields import (
    Field,
    boolean,
    constant,
    enum,
    integer,
    json_boolean,
    json_integer,
    json_text,
    message,
    related_name,
    text,
    texts,
    when,
)
from controlplane.rest.listing import Listing, resource_fields, state_fields

IS_BASE = ModelRow.kind.in_(BASE_KINDS)
IS_ADDON = ModelRow.kind.not_in(BASE_KINDS)
SUPPORTS_LORA = json_boolean(ModelRow.facts, "supports_lora")
TUNABLE = and_(ModelRow.state == READY, ModelRow.kind == HF_BASE_MODEL, SUPPORTS_LORA)
PRECISION = func.coalesce(func.nullif(json_text(ModelRow.facts, "default_precision"), ""), PRECISIONS[0])
HAS_TEMPLATE = func.coalesce(func.jsonb_typeof(ModelRow.conversation_config) == "object", false())
Base = aliased(ModelRow)


def _base_model_details() -> dict[str, Field]:
    return {
        "base_model_details": message(IS_BASE),
        "base_model_details.world_size": integer(when(IS_BASE, 1)),
        "base_model_details.checkpoint_format": enum(when(IS_BASE, "HUGGINGFACE"), CHECKPOINT_FORMATS),
        "base_model_details.parameter_count": integer(
            when(IS_BASE, json_integer(ModelRow.facts, "parameter_count"))
        ),
        "base_model_details.moe": boolean(when(IS_BASE, json_boolean(ModelRow.facts, "moe"))),
        "base_model_details.tunable": boolean(when(IS_BASE, TUNABLE)),
        "base_model_details.model_type": text(when(IS_BASE, json_text(ModelRow.facts, "model_type"))),
        "base_model_details.supports_fireattention": boolean(when(IS_BASE, false())),
        "base_model_details.default_precision": enum(when(IS_BASE, PRECISION), PRECISIONS),
        "base_model_details.supports_mtp": boolean(when(IS_BASE, false())),
    }


def _peft_details(shown: ColumnElement[bool]) -> dict[str, Field]:
    """`shown` says of which base models the caller may know."""
    of_base = select(func.coalesce(Base.facts["model_type"].astext, ""))
    base_type = of_base.where(Base.uid == ModelRow.base_model_uid, shown).scalar_subquery()
    base_name = related_name(Base, "models", ModelRow.base_model_uid, shown)
    return {
        "peft_details": message(IS_ADDON),
        "peft_details.base_model": base_name,
        "peft_details.r": integer(when(IS_ADDON, json_integer(ModelRow.facts, "r"))),
        "peft_details.target_modules": texts(when(IS_ADDON, ModelRow.facts["target_modules"])),
        "peft_details.base_model_type": text(base_type),
    }


def _conversation_config() -> dict[str, Field]:
    config, is_set = ModelRow.conversation_config, HAS_TEMPLATE
    parts = ("style", "system", "template")
    return {
        "conversation_config": message(is_set),
        **{f"conversation_config.{part}": text(when(is_set, json_text(config, part))) for part in parts},
    }


# Large, and no part of a list.
NOT_SHOWN = [defer(ModelRow.problems, raiseload=True)]

LISTING = Listing(
    key="models",
    message=Model,
    unique=ModelRow.uid,
    fields={
        **resource_fields(ModelRow, "models"),
        **state_fields(ModelRow, ("UPLOADING", "READY")),
        "description": text(ModelRow.description),
        "kind": enum(ModelRow.kind, KINDS),
        "github_url": text(ModelRow.github_url),
        "hugging_face_url": text(ModelRow.hugging_face_url),
        **_base_model_details(),
        **_peft_details(true()),
        **_conversation_config(),
        "public": boolean(ModelRow.public),
        "context_length": integer(ModelRow.context_length),
        "supports_image_input": boolean(ModelRow.supports_image_input),
        "supports_tools": boolean(ModelRow.supports_tools),
        "default_draft_model": text(ModelRow.default_draft_model),
        "default_draft_token_count": integer(ModelRow.default_draft_token_count),
        "fine_tuning_job": text(ModelRow.fine_tuning_job),
        **lineage_fields(ModelRow.lineage),
        "tunable": boolean(TUNABLE, nullable=False),
        "supports_lora": boolean(SUPPORTS_LORA, nullable=False),
        "use_hf_apply_chat_template": boolean(HAS_TEMPLATE, nullable=False),
        "supervised_lora_tunable": boolean(TUNABLE, nullable=False),
        "imported_from": constant(""),
        "cluster": constant(""),
        "calibrated": constant(False),
        "rl_tunable": constant(False),
        "supports_serverless": constant(False),
        "supervised_full_parameter_tunable": constant(False),
        "rl_lora_tunable": constant(False),
        "rl_full_parameter_tunable": constant(False),
    },
)

# What others are not shown, they cannot find out by filtering either.
LISTING_FOR_OTHERS = replace(
    LISTING,
    fields={
        **LISTING.fields,
        **_peft_details(and_(Base.public, Base.state == READY)),
        "fine_tuning_job": constant(""),
        "lineage": message(false()),
        **{f"lineage.{name}": text(when(false(), "")) for name in Lineage.model_fields},
    },
)
