"""Fine-tuning jobs as the newer collection asks for them: its words, and what only it can ask for."""

from __future__ import annotations

from controlplane.errors import invalid
from controlplane.resources.fine_tuning_jobs.newer_settings import (
    WORDS,
    checked_id,
    newer_defaults,
    settings_of,
)
from controlplane.resources.fine_tuning_jobs.tables import SUPERVISED_FINE_TUNING_JOBS
from controlplane.resources.fine_tuning_jobs.wandb import newer_wandb
from controlplane.resources.fine_tuning_jobs.wanted import Wanted
from controlplane.resources.supervised_fine_tuning_jobs.schemas import SupervisedFineTuningJob

COMPLETION_TEMPLATES = {"input_template": "{prompt}", "output_template": "{completion}"}


def wanted_job(job_id: str, body: SupervisedFineTuningJob) -> Wanted:
    """Rows of messages train a conversation; rows with `prompt` and `completion`, a completion."""
    given = body.given()
    if given.get("nodes", 0) > 1:
        raise invalid("nodes is not supported above 1: a job trains on one machine", "nodes")
    job_id = checked_id(job_id, "supervisedFineTuningJobId")
    templates = {"conversation": {"jinja_template": given.get("jinja_template", "")}}
    if not given.get("jinja_template"):
        templates["text_completion"] = COMPLETION_TEMPLATES
    return Wanted(
        collection=SUPERVISED_FINE_TUNING_JOBS,
        job_id=job_id,
        given=settings_of(given, job_id),
        wandb=newer_wandb(given),
        templates=templates,
        defaults=newer_defaults,
        words={**WORDS, "input_template": "dataset", "output_template": "dataset"},
    )
