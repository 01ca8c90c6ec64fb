"""Fine-tuning jobs as the older collection asks for them."""

from __future__ import annotations

from typing import Any

from controlplane.errors import invalid
from controlplane.resources.fine_tuning_jobs.defaults import defaults_for
from controlplane.resources.fine_tuning_jobs.hyperparameters import DEFAULT_EVALUATION_SPLIT
from controlplane.resources.fine_tuning_jobs.inputs import FORMAT_OF_KIND
from controlplane.resources.fine_tuning_jobs.schemas import FineTuningJob
from controlplane.resources.fine_tuning_jobs.tables import FINE_TUNING_JOBS
from controlplane.resources.fine_tuning_jobs.wandb import seed_wandb
from controlplane.resources.fine_tuning_jobs.wanted import Wanted

WORDS = {
    "jinja_template": "conversation.jinjaTemplate",
    "input_template": "textCompletion.inputTemplate",
    "output_template": "textCompletion.outputTemplate",
    "text": "textClassification.text",
    "label": "textClassification.label",
}


def wanted_job(job_id: str, body: FineTuningJob) -> Wanted:
    given = body.given()
    kind = chosen_kind(given)
    given["dataset"] = named_dataset(given)
    given["accumulation"] = given.get("gradient_accumulation_steps", 0)
    refuse_idle_split(given)
    refuse_odd_batches(given)
    return Wanted(
        collection=FINE_TUNING_JOBS,
        job_id=job_id,
        given=given,
        templates={kind: given[kind].model_dump()},
        defaults=defaults_for,
        words=WORDS,
        wandb=seed_wandb(given),
    )


def chosen_kind(given: dict[str, Any]) -> str:
    """The job's kind; exactly one must be given."""
    present = [kind for kind in FORMAT_OF_KIND if given.get(kind) is not None]
    if len(present) != 1:
        what = "none is" if not present else f"{len(present)} are"
        raise invalid(
            f"a job needs exactly one of conversation, textCompletion and textClassification; {what} given"
        )
    return present[0]


def named_dataset(given: dict[str, Any]) -> str:
    named = {given.get("dataset", ""), *(ref.dataset for ref in given.get("datasets", []))} - {""}
    if len(named) > 1:
        raise invalid("dataset and datasets name different datasets, and a job reads one", "datasets")
    return named.pop() if named else ""


def refuse_idle_split(given: dict[str, Any], switch: str = "evaluation") -> None:
    """Rows are held out only for an evaluation that has no dataset of its own."""
    split, own = given.get("evaluation_split"), given.get("evaluation_dataset")
    if split in (None, 0, DEFAULT_EVALUATION_SPLIT) or (given.get("evaluation") and not own):
        return
    why = "evaluationDataset is evaluated on" if own else f"set {switch} to evaluate"
    raise invalid(f"evaluationSplit has no effect: {why}", "evaluationSplit")


def refuse_odd_batches(given: dict[str, Any], field: str = "batchSize") -> None:
    batch = given.get("batch_size", 0)
    if batch & (batch - 1):
        raise invalid(f"{field} must be a power of 2, and {batch} is not", field)
