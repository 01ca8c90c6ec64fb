"""The checkpoints of a job, read from where its trainer keeps them; each can be made a model of.

checkpoints/checkpoint-<step>/   what a trainer goes on from; the last two
samplers/sampler-<step>/         adapters kept on the way, where the job asked for them

A manifest.json says which files belong to it, and is written last: what has one is whole.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.errors import failed_precondition, invalid, not_found
from controlplane.names import parse_name
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.models.schemas import Model
from controlplane.resources.models.states import HF_PEFT_ADDON
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.quotas.service import claim_model
from controlplane.resources.uploads import (
    CHECKING,
    UPLOADING,
    URL_LIFETIME_SECONDS,
    GetDownloadEndpointResponse,
)
from controlplane.rest.access import insert
from controlplane.rest.schema import ApiModel, Int64, Timestamp
from controlplane.storage import ObjectNotFound, ObjectStore

PLACES = {
    "checkpoints/": "CHECKPOINT_TYPE_TRAINING_LORA",
    "samplers/": "CHECKPOINT_TYPE_INFERENCE_LORA",
}
MANIFEST = "manifest.json"
KEY = re.compile(r"(?:checkpoints|samplers)/((?:checkpoint|sampler)-(\d{1,12}))/([^/]+)")
ID = re.compile(r"(?:checkpoint|sampler)-[0-9]{1,12}")
WEIGHTS = "adapter_model.safetensors"
OF_MODEL = frozenset({"adapter_config.json", WEIGHTS, "fireworks.json", "README.md"})
MOST_PER_PAGE = 200
DEFAULT_PER_PAGE = 50


class Checkpoint(ApiModel):
    name: str = ""
    create_time: Timestamp | None = None
    update_time: Timestamp | None = None
    checkpoint_type: Annotated[
        str, Field(description="CHECKPOINT_TYPE_TRAINING_LORA, to go on from, or …_INFERENCE_LORA.")
    ] = ""
    promotable: Annotated[bool, Field(description="Whether a model can be made of it.")] = False
    step: int = 0
    size_bytes: Int64 = 0


class CheckpointPage(ApiModel):
    checkpoints: Annotated[list[Checkpoint], Field(description="The oldest first.")]
    next_page_token: Annotated[str, Field(description="Empty at the end of the list.")] = ""
    total_size: int = 0


class PromoteCheckpointRequest(ApiModel):
    output_model: Annotated[str, Field(description="The model to make: a name, or an id.")]
    base_model: Annotated[str, Field(description="The job's; another one is refused.")] = ""
    async_promotion: Annotated[
        bool, Field(description="Answer at once; the model is READY when its check is over.")
    ] = False


class PromoteCheckpointResponse(ApiModel):
    model: Model


@dataclass
class Found:
    """A checkpoint in the store."""

    id: str
    step: int
    place: str
    size: int = 0
    completed: datetime | None = None
    has_weights: bool = False

    def message(self, job: FineTuningJobRow) -> Checkpoint:
        return Checkpoint(
            name=f"{job.name}/checkpoints/{self.id}",
            create_time=self.completed,
            update_time=self.completed,
            checkpoint_type=PLACES[self.place],
            promotable=self.has_weights,
            step=self.step,
            size_bytes=self.size,
        )


def list_checkpoints(store: ObjectStore, prefix: str) -> list[Found]:
    """Those that are whole, by their steps."""
    found: dict[str, Found] = {}
    for place in PLACES:
        for item in store.list(prefix + place):
            if match := KEY.fullmatch(item.key.removeprefix(prefix)):
                one = found.setdefault(match[1], Found(match[1], int(match[2]), place))
                one.size += item.size
                one.has_weights = one.has_weights or match[3] == WEIGHTS
                one.completed = item.modified if match[3] == MANIFEST else one.completed
    whole = [one for one in found.values() if one.completed is not None]
    return sorted(whole, key=lambda one: (one.step, one.id))


def page_of(job: FineTuningJobRow, found: list[Found], size: int, token: str) -> CheckpointPage:
    """A page of at most `size`; the token is the id of the last one of the page before."""
    ids = [one.id for one in found]
    if token and token not in ids:
        raise invalid(
            "pageToken is of a checkpoint that is not there any more; list from the start", "pageToken"
        )
    start = ids.index(token) + 1 if token else 0
    shown = found[start : start + (size or DEFAULT_PER_PAGE)]
    more = bool(shown) and start + len(shown) < len(found)
    return CheckpointPage(
        checkpoints=[one.message(job) for one in shown],
        next_page_token=shown[-1].id if more else "",
        total_size=len(found),
    )


def files_of(store: ObjectStore, job: FineTuningJobRow, checkpoint_id: str) -> tuple[str, dict[str, Any]]:
    """Where a checkpoint lies, and its files: name → {"size", "sha256"}; 404 when there is none."""
    place = "samplers/" if checkpoint_id.startswith("sampler-") else "checkpoints/"
    folder = f"{job.prefix}{place}{checkpoint_id}/"
    if not ID.fullmatch(checkpoint_id):  # Not every text can be a key of the store.
        raise not_found(f"{job.name}/checkpoints/{checkpoint_id}")
    try:
        return folder, json.loads(store.get_bytes(folder + MANIFEST))["files"]
    except ObjectNotFound:
        raise not_found(f"{job.name}/checkpoints/{checkpoint_id}") from None


def checkpoint_downloads(
    store: ObjectStore, job: FineTuningJobRow, checkpoint_id: str
) -> GetDownloadEndpointResponse:
    folder, files = files_of(store, job, checkpoint_id)
    return GetDownloadEndpointResponse(
        filename_to_signed_urls={
            name: store.signed_get_url(folder + name, name, URL_LIFETIME_SECONDS) for name in sorted(files)
        },
        filename_to_size={name: file["size"] for name, file in files.items()},
        filename_to_sha256={name: file["sha256"] for name, file in files.items()},
    )


async def promote(
    session: AsyncSession,
    caller: Caller,
    job: FineTuningJobRow,
    checkpoint_id: str,
    found: tuple[str, dict[str, Any]],
    request: PromoteCheckpointRequest,
) -> ModelRow:
    """A model of the checkpoint's adapter. A worker copies its files, and checks them as those of uploads."""
    folder, files = found
    name = parse_name(request.output_model, "models", caller.account_id, "outputModel")
    if name.account_id != caller.account_id:
        raise not_found(str(name))
    refuse_other_base(job, request)
    if WEIGHTS not in files or job.base_model_uid is None:
        raise failed_precondition(f"no model can be made of {job.name}/checkpoints/{checkpoint_id}")
    row = ModelRow(
        uid=uuid.uuid4(),
        account_id=caller.account_id,
        id=name.id,
        display_name=job.display_name,
        kind=HF_PEFT_ADDON,
        base_model_uid=job.base_model_uid,
        fine_tuning_job=job.name,
        lineage={
            **job.settings.get("lineage", {}),
            "fine_tuning_job": job.name,
            "checkpoint": f"{job.name}/checkpoints/{checkpoint_id}",
        },
        created_by=caller.email,
        files={name: to_copy(folder + name, file) for name, file in files.items() if name in OF_MODEL},
        state=UPLOADING,
        reason=CHECKING,
        status_message="its files are being copied and checked",
        next_reconcile_at=func.now(),
    )
    await claim_model(session, caller.account_id)
    await insert(session, row, row.name)
    return row


def refuse_other_base(job: FineTuningJobRow, request: PromoteCheckpointRequest) -> None:
    if not request.base_model:
        return
    # Jobs made by earlier versions do not tell the tuned model from the one that was named.
    own = job.settings.get("tuned_model") or job.settings["base_model"]
    named = str(parse_name(request.base_model, "models", job.account_id, "baseModel"))
    if named != own:
        raise invalid(f"baseModel is {named}, and the job tuned {own}", "baseModel")


def to_copy(key: str, file: dict[str, Any]) -> dict[str, Any]:
    """A file of a model that is still where another resource has it."""
    return {"size": file["size"], "sha256": "", "copied_from": key, "announced": file["sha256"]}
