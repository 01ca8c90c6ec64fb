from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.uploads import STATES
from controlplane.rest.schema import (
    ApiModel,
    Empty,
    Int64,
    OneOf,
    Status,
    Timestamp,
    not_returned,
    output_only,
)

FORMATS = ("FORMAT_UNSPECIFIED", "CHAT", "COMPLETION", "PREFERENCE", "RL")
TRANSFORMED = "transformed"
SPLITTED = "splitted"
NO_FILTER = "a dataset is copied as a whole; choose the rows first, and upload those"
REPORT_TYPE = "type.googleapis.com/hearth.DatasetReport"


class EvaluationResult(ApiModel):
    evaluation_job_id: str = ""


class Transformed(ApiModel):
    """A copy of another dataset; create one with `sourceDatasetId`."""

    unsupported: ClassVar[dict[str, str]] = {"filter": NO_FILTER}

    source_dataset_id: str = ""
    filter: str = ""
    original_format: Annotated[str, OneOf(*FORMATS)] = output_only(FORMATS[0])


class Splitted(ApiModel):
    """A part of another dataset, made by `:splitDataset`."""

    source_dataset_id: str = ""


class Dataset(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "evaluation_result": "evaluation jobs are not available",
        "splitted": "parts of a dataset are made by its splitDataset",
        "eval_protocol": "evaluation protocols are not available",
        "external_url": "nothing is fetched from other places; upload the file",
        "source_job_name": "only the platform sets it",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    create_time: Timestamp | None = output_only()
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    status: Status | None = output_only()
    example_count: Annotated[
        Int64, Field(ge=0, description="The client's word until the files are checked; then it is counted.")
    ] = 0
    user_uploaded: Empty | None = None
    evaluation_result: EvaluationResult | None = None
    transformed: Transformed | None = None
    splitted: Splitted | None = None
    eval_protocol: Empty | None = None
    external_url: str = ""
    format: Annotated[
        str,
        OneOf(*FORMATS),
        Field(description="Found out when the files are checked, unless it is given. RL is not supported."),
    ] = FORMATS[0]
    created_by: str = output_only("")
    update_time: Timestamp | None = output_only()
    source_job_name: str = ""
    estimated_token_count: Int64 = output_only(0)
    average_turn_count: float = output_only(0.0)

    access_policy: Any = not_returned()
    fireworks_traced: Any = not_returned()
    draft_model_states: Any = not_returned()

    @classmethod
    def of(cls, row: DatasetRow) -> Self:
        return cls(
            name=row.name,
            display_name=row.display_name,
            create_time=row.create_time,
            state=row.state,
            status=Status.of(row),
            example_count=row.example_count,
            **_origin(row),
            format=row.format,
            created_by=row.created_by,
            update_time=row.update_time,
            estimated_token_count=row.estimated_token_count,
            average_turn_count=row.average_turn_count,
        )


ORIGINS = ("user_uploaded", "evaluation_result", "transformed", "splitted", "eval_protocol")
"""Where a dataset's rows come from: one of these."""
OF_OLDER_CLIENTS = ("access_policy", "fireworks_traced", "draft_model_states")


def _origin(row: DatasetRow) -> dict[str, Any]:
    source = row.source
    if not source:
        return {"user_uploaded": Empty()}
    if source["kind"] == TRANSFORMED:
        made = Transformed(source_dataset_id=source["name"], original_format=source["format"])
        return {TRANSFORMED: made}
    return {SPLITTED: Splitted(source_dataset_id=source["name"])}


class CreateDatasetRequest(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {"filter": NO_FILTER}

    dataset_id: str
    dataset: Dataset = Field(default_factory=Dataset)
    source_dataset_id: Annotated[
        str, Field(description="A READY dataset of the account, which the new one is a copy of.")
    ] = ""
    filter: str = ""


class SplitDatasetRequest(ApiModel):
    chunk_size: Annotated[int, Field(ge=200, description="The rows of each part; the last may have fewer.")]
    parent: Annotated[str, Field(description="The account's name; may be left out.")] = ""


class SplitDatasetResponse(ApiModel):
    chunk_dataset_names: list[str]
    chunks_created: int
    total_examples: int


class UploadedFile(ApiModel):
    """What `:upload` answers: the shape and the spelling of OpenAI's file object."""

    id: str
    object: str = "file"
    purpose: str = "dataset"
    filename: str
    bytes: int
    created_at: Annotated[int, Field(alias="created_at")]


def report_detail(row: DatasetRow) -> dict[str, Any]:
    """The row-level report of the last check, as an error detail."""
    report = row.report
    return {
        "@type": REPORT_TYPE,
        "badRowCount": report.get("bad_row_count", 0),
        "badRows": report.get("bad_rows", []),
        "exampleCount": report.get("example_count", 0),
        "estimatedTokenCount": report.get("estimated_token_count", 0),
    }
