from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from controlplane.resources.datasets.tables import DatasetRow
from controlplane.rest.schema import ApiModel, Empty, Int64, Status, Timestamp, output_only

REPORT_TYPE = "type.googleapis.com/hearth.DatasetReport"


class Dataset(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "evaluation_result": "evaluation jobs are not available",
        "transformed": "datasets cannot be derived from others yet",
        "splitted": "datasets cannot be split yet",
        "eval_protocol": "evaluation protocols are not available",
        "external_url": "nothing is fetched from other places; upload the file",
        "source_job_name": "only the platform sets it",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    create_time: Timestamp | None = output_only()
    state: str = output_only("STATE_UNSPECIFIED")
    status: Status | None = output_only()
    example_count: Annotated[
        Int64, Field(ge=0, description="Counted when the upload is checked; what a client sends is replaced.")
    ] = 0
    user_uploaded: Empty | None = None
    evaluation_result: dict[str, Any] | None = None
    transformed: dict[str, Any] | None = None
    splitted: dict[str, Any] | None = None
    eval_protocol: dict[str, Any] | None = None
    external_url: str = ""
    format: str = "FORMAT_UNSPECIFIED"
    created_by: str = output_only("")
    update_time: Timestamp | None = output_only()
    source_job_name: str = ""
    estimated_token_count: Int64 = output_only(0)
    average_turn_count: float = output_only(0.0)

    @classmethod
    def of(cls, row: DatasetRow) -> Self:
        return cls(
            name=row.name,
            display_name=row.display_name,
            create_time=row.create_time,
            state=row.state,
            status=Status.of(row),
            example_count=row.example_count,
            user_uploaded=Empty(),
            format=row.format,
            created_by=row.created_by,
            update_time=row.update_time,
            estimated_token_count=row.estimated_token_count,
            average_turn_count=row.average_turn_count,
        )


class CreateDatasetRequest(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "source_dataset_id": "datasets cannot be derived from others yet",
        "filter": "datasets cannot be derived from others yet",
    }

    dataset_id: str
    dataset: Dataset = Field(default_factory=Dataset)
    source_dataset_id: str = ""
    filter: str = ""


class UploadedFile(ApiModel):
    """What `:upload` answers: the shape of OpenAI's file object."""

    id: str
    object: str = "file"
    purpose: str = "dataset"
    filename: str
    bytes: int
    created_at: int


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
