"""What is known of a job's model by the rows that were held out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.schema import ApiModel, Int64


class Scores(ApiModel):
    """Of one moment, on all rows that were held out."""

    loss: Annotated[
        float, Field(description="Mean over all trained tokens, whatever the batch size; or over pairs.")
    ] = 0.0
    perplexity: Annotated[float | None, Field(description="Left out where pairs are compared.")] = None
    accuracy: Annotated[
        float | None, Field(description="Share of the pairs whose better answer has become the likelier one.")
    ] = None
    margin: Annotated[
        float | None, Field(description="What better answers have gained over worse ones, in the mean.")
    ] = None
    tokens: Int64 = 0
    exact_match: Annotated[
        float | None,
        Field(description="Share of the asked rows answered to the letter; left out if all are long."),
    ] = None
    exact_matches: int = 0
    exact_match_rows: Annotated[
        int, Field(description="Rows that were asked: at most 500, those with answers of 32 tokens or less.")
    ] = 0
    confusion: Annotated[
        dict[str, dict[str, int]],
        Field(description="Of a classification: label → answer → rows. What is no label counts as (other)."),
    ] = Field(default_factory=dict)


class EvaluationResult(ApiModel):
    """What held-out rows say of the model before its first step, and of the one that came out."""

    before: Scores | None = None
    after: Scores | None = None


def evaluation_message(row: FineTuningJobRow) -> EvaluationResult | None:
    found = row.result.get("report", {}).get("evaluation") or {}
    if not found:
        return None
    return EvaluationResult(
        **{when: Scores(**_known(found[when])) for when in ("before", "after") if found.get(when)}
    )


def _known(scores: dict[str, object]) -> dict[str, object]:
    """Trainers of other versions may say more."""
    return {name: scores[name] for name in Scores.model_fields if scores.get(name) is not None}


NOT_LISTED = "it is part of the result, which is read with the job"
REFUSED = {
    f"evaluation_result.{when}.{name}": NOT_LISTED
    for when in EvaluationResult.model_fields
    for name in Scores.model_fields
}
