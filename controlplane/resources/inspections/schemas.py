from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from controlplane.resources.fine_tuning_jobs.costs import Money
from controlplane.resources.fine_tuning_jobs.tables import (
    DPO_JOBS,
    FINE_TUNING_JOBS,
    SUPERVISED_FINE_TUNING_JOBS,
)
from controlplane.resources.inspections.states import STATES
from controlplane.rest.schema import ApiModel, Int64, OneOf, Status, output_only

MOST_ROWS = 50
COLLECTIONS = ("COLLECTION_UNSPECIFIED", FINE_TUNING_JOBS, SUPERVISED_FINE_TUNING_JOBS, DPO_JOBS)


class CompletionTemplates(ApiModel):
    input_template: str
    output_template: str


class ClassificationFields(ApiModel):
    text: str
    label: str


class InspectDatasetRequest(ApiModel):
    """The job that would read the dataset; what is left out is as the job's default would be."""

    collection: Annotated[
        str,
        OneOf(*COLLECTIONS),
        Field(
            description="Where the job would be made, whose defaults hold then. When unset, pairs are read "
            "for dpoJobs and all else for fineTuningJobs."
        ),
    ] = COLLECTIONS[0]
    base_model: str = ""
    warm_start_from: str = ""
    evaluation_dataset: Annotated[
        str, Field(description="Looked at too: for rows that are in both, say.")
    ] = ""
    jinja_template: Annotated[str, Field(max_length=200_000)] = ""
    text_completion: CompletionTemplates | None = None
    text_classification: ClassificationFields | None = None
    max_context_length: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    batch_size: Annotated[
        int,
        Field(ge=0, le=10_000_000, description="Tokens of a batch; fineTuningJobs have only the next."),
    ] = 0
    batch_size_samples: Annotated[int, Field(ge=0, le=4096, description="Rows of a batch.")] = 0
    gradient_accumulation_steps: Annotated[
        int, Field(ge=0, le=4096, description="Batches of one step of the optimizer.")
    ] = 0
    eval_auto_carveout: Annotated[
        bool, Field(description="Hold rows out to evaluate on, as `evaluation` of fineTuningJobs does.")
    ] = False
    evaluation_split: Annotated[
        float, Field(ge=0, lt=1, description="The share of them; 0.15, which only fineTuningJobs can change.")
    ] = 0
    epochs: Annotated[float, Field(ge=0, le=100)] = 0
    lora_rank: Annotated[int, Field(ge=0, le=64)] = 0
    lora_target_modules: list[str] = Field(default_factory=list, max_length=100)
    first_row: Annotated[int, Field(ge=0, le=3_000_000, description="The first row to show, from 1.")] = 0
    row_count: Annotated[
        int, Field(ge=0, le=MOST_ROWS, description="How many rows to show; 3 when unset.")
    ] = 0


class Finding(ApiModel):
    """What there is to say of the data."""

    code: str = ""
    severity: Annotated[str, Field(description="ERROR: the job would fail. WARNING: it would train.")] = ""
    sentence: str = ""
    hint: str = ""
    rows: Annotated[Int64, Field(description="How many rows it is about; 0: the whole.")] = 0
    places: Annotated[list[str], Field(description="File and line of the first of them.")] = Field(
        default_factory=list
    )


class LengthStep(ApiModel):
    """Rows of at most so many tokens, and of more than the step before."""

    tokens: int = 0
    rows: Int64 = 0


class DataCounts(ApiModel):
    """What becomes of a dataset's rows. Tokens are of one epoch, after cutting."""

    rows: Int64 = 0
    rows_trained: Int64 = 0
    rows_dropped: Int64 = 0
    rows_cut: Int64 = 0
    examples: Int64 = 0
    tokens: Int64 = 0
    trained_tokens: Int64 = 0
    longest: int = 0
    lengths: list[LengthStep] = Field(default_factory=list)
    labels: dict[str, int] = Field(default_factory=dict)


class ShownPiece(ApiModel):
    """Some tokens in a row of one sort."""

    text: str = ""
    tokens: int = 0
    trained: bool = False
    special: bool = False
    cut: Annotated[bool, Field(description="Behind the cut-off length: the model does not see it.")] = False


class ShownRow(ApiModel):
    """A row as the model is trained on it; several examples where a template rewrites earlier answers."""

    place: str = ""
    problem: str = ""
    examples: list[list[ShownPiece]] = Field(default_factory=list)


class Estimate(ApiModel):
    """What training would take."""

    steps: Int64 = 0
    steps_per_epoch: Int64 = 0
    tokens: Annotated[Int64, Field(description="Of all epochs.")] = 0
    seconds: Annotated[Int64, Field(description="0: not known.")] = 0
    seconds_basis: Annotated[
        str,
        Field(description="EARLIER_JOBS: as fast as the last job on this base model; else empty."),
    ] = ""
    cost: Money = Field(default_factory=Money)


class InspectionReport(ApiModel):
    kind: str = ""
    masking: Annotated[
        str, Field(description="How the trained text was found: unk_token, generation, prefix, completion.")
    ] = ""
    template: Annotated[str, Field(description="Whose chat template it is.")] = ""
    cutoff_length: int = 0
    training: DataCounts = Field(default_factory=DataCounts)
    evaluation: DataCounts | None = None
    findings: list[Finding] = Field(default_factory=list)
    estimate: Estimate = Field(default_factory=Estimate)
    rows: list[ShownRow] = Field(default_factory=list)


class InspectDatasetResponse(ApiModel):
    state: Annotated[
        str,
        OneOf(*STATES),
        Field(description="PENDING: it takes longer than a request may wait; ask again in a moment."),
    ] = output_only(STATES[0])
    status: Status | None = output_only()
    report: InspectionReport | None = output_only()


def report_message(
    report: dict[str, Any], rows: list[dict[str, Any]], estimate: Estimate
) -> InspectionReport:
    return InspectionReport.model_validate({**report, "rows": rows, "estimate": estimate})
