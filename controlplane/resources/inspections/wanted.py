"""The job whose data an inspection looks at: as the collection that would train it makes it of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic.alias_generators import to_camel

from controlplane.errors import invalid
from controlplane.resources.dpo_jobs.service import preference_defaults
from controlplane.resources.fine_tuning_jobs.defaults import Defaults, defaults_for
from controlplane.resources.fine_tuning_jobs.newer_settings import WORDS, newer_defaults, settings_of
from controlplane.resources.fine_tuning_jobs.service import refuse_idle_split, refuse_odd_batches
from controlplane.resources.fine_tuning_jobs.tables import (
    DPO_JOBS,
    FINE_TUNING_JOBS,
    SUPERVISED_FINE_TUNING_JOBS,
)
from controlplane.resources.fine_tuning_jobs.wanted import Wanted
from controlplane.resources.inspections.schemas import COLLECTIONS, InspectDatasetRequest
from controlplane.resources.supervised_fine_tuning_jobs.service import COMPLETION_TEMPLATES
from controlplane.resources.tables import DatasetRow

DEFAULTS: dict[str, Callable[[str, int, int], Defaults]] = {
    FINE_TUNING_JOBS: defaults_for,
    SUPERVISED_FINE_TUNING_JOBS: newer_defaults,
    DPO_JOBS: preference_defaults,
}
NEWER_LACK = ("text_completion", "text_classification", "evaluation_split")
LACKING = {
    FINE_TUNING_JOBS: ("batch_size",),
    SUPERVISED_FINE_TUNING_JOBS: NEWER_LACK,
    DPO_JOBS: NEWER_LACK,
}
"""What the jobs of a collection cannot be told."""
WAYS = ("jinja_template", "text_completion", "text_classification")


def wanted_job(dataset: DatasetRow, body: InspectDatasetRequest) -> Wanted:
    """The job that would read the dataset as the request says."""
    given = {name: value for name, value in body.given().items() if value}
    collection = given.pop("collection", COLLECTIONS[0])
    if collection == COLLECTIONS[0]:
        collection = DPO_JOBS if dataset.format == "PREFERENCE" else FINE_TUNING_JOBS
    refuse_what_has_no_effect(collection, given)
    split = {name: given[name] for name in ("evaluation_split",) if name in given}
    settings = {**settings_of(given, ""), **split, "dataset": dataset.name}
    if collection == FINE_TUNING_JOBS:
        refuse_odd_batches(settings, "batchSizeSamples")
        refuse_idle_split(settings, "evalAutoCarveout")
    return Wanted(
        collection=collection,
        job_id="",
        given=settings,
        templates=templates_of(collection, body),
        defaults=DEFAULTS[collection],
        words=WORDS,
    )


def refuse_what_has_no_effect(collection: str, given: dict[str, Any]) -> None:
    ways = [to_camel(name) for name in WAYS if name in given]
    if len(ways) > 1:
        raise invalid(f"rows are read in one way: give one of {' and '.join(ways)}", ways[1])
    for name in LACKING[collection]:
        if name in given:
            field = to_camel(name)
            raise invalid(f"{field} has no effect: {collection} have no such setting", field)
    if collection != FINE_TUNING_JOBS and given.get("epochs", 1) % 1:
        raise invalid(f"epochs of {collection} is a whole number", "epochs")


def templates_of(collection: str, body: InspectDatasetRequest) -> dict[str, dict[str, str]]:
    """What the request names, else what the dataset's format allows: messages, pairs or completions."""
    if body.text_classification is not None:
        return {"text_classification": body.text_classification.model_dump()}
    if body.text_completion is not None:
        return {"text_completion": body.text_completion.model_dump()}
    kind = "preference" if collection == DPO_JOBS else "conversation"
    talk = {kind: {"jinja_template": body.jinja_template}}
    if collection == DPO_JOBS or body.jinja_template:
        return talk
    return {**talk, "text_completion": COMPLETION_TEMPLATES}
