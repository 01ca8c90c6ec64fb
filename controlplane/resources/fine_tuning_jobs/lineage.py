"""What a job or a model was made of: names, and the hash of what they named at the time."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from controlplane.content_hash import content_sha256
from controlplane.rest.filters.fields import Field as ListField
from controlplane.rest.filters.fields import json_text, message, text, when
from controlplane.rest.schema import ApiModel

HASHED = "Of all its files, when the job was made: the SHA-256 of the lines `sha256sum` prints for them."


class Lineage(ApiModel):
    fine_tuning_job: Annotated[str, Field(description="It may be deleted by now.")] = ""
    checkpoint: Annotated[str, Field(description="Empty: the end of the job.")] = ""
    base_model: str = ""
    base_model_sha256: Annotated[str, Field(description=HASHED)] = ""
    warm_start_from: str = ""
    warm_start_sha256: str = ""
    dataset: str = ""
    dataset_sha256: str = ""
    evaluation_dataset: str = ""
    evaluation_dataset_sha256: str = ""


def lineage_of(**inputs: Any) -> dict[str, str]:
    """As rows keep it: of what was read, by its part in the job."""
    found: dict[str, str] = {}
    for part, row in inputs.items():
        if row is not None:
            found["warm_start_from" if part == "warm_start" else part] = row.name
            hashed = content_sha256({name: file.get("sha256", "") for name, file in row.files.items()})
            found[f"{part}_sha256"] = hashed
    return found


def lineage_message(kept: dict[str, str]) -> Lineage | None:
    return Lineage(**kept) if kept else None


def lineage_fields(column: Any) -> dict[str, ListField]:
    """What lists can be filtered by."""
    is_set = column["base_model"].isnot(None)
    parts = {f"lineage.{name}": text(when(is_set, json_text(column, name))) for name in Lineage.model_fields}
    return {"lineage": message(is_set), **parts}
