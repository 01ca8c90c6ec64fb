"""What a job's owner should know although the job goes on, as its trainer says it when it finds it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func

from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.rest.filters.fields import Field, texts
from controlplane.rest.schema import output_only


def warnings_field() -> Any:
    return output_only([], description="What to know of it, also while it runs, or when it has failed.")


def job_warnings(row: FineTuningJobRow) -> list[str]:
    """Of the last attempt. A trainer that was lost has left its progress; only a result has the very last."""
    said = (row.progress, row.result.get("report", {}))
    return list(dict.fromkeys(str(text) for part in said for text in part.get("warnings", [])))


def warning_fields() -> dict[str, Field]:
    """What lists can be filtered by."""
    none, result = func.jsonb_build_array(), FineTuningJobRow.result["report"]["warnings"]
    said = func.coalesce(FineTuningJobRow.progress["warnings"], none)
    return {"warnings": texts(said.op("||")(func.coalesce(result, none)), nullable=False)}
