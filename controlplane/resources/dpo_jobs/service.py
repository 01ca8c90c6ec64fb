"""Preference tuning as its collection asks for it, in the words that all jobs share."""

from __future__ import annotations

from typing import Any

from controlplane.errors import invalid
from controlplane.resources.dpo_jobs.schemas import DpoJob, LossConfig
from controlplane.resources.fine_tuning_jobs.defaults import Defaults
from controlplane.resources.fine_tuning_jobs.newer_settings import (
    WORDS,
    checked_id,
    newer_defaults,
    settings_of,
)
from controlplane.resources.fine_tuning_jobs.tables import DPO_JOBS
from controlplane.resources.fine_tuning_jobs.wandb import newer_wandb
from controlplane.resources.fine_tuning_jobs.wanted import Wanted

DEFAULT_BETA = 0.1
DEFAULT_ODDS_WEIGHT = 0.1
"""Of ORPO: what its authors used (https://arxiv.org/abs/2403.07691, section 6)."""
NOT_OF_THE_JOB = ("evaluation",)
"""What words of the job's own are, not of its trainingConfig."""


def wanted_job(job_id: str, body: DpoJob) -> Wanted:
    given = body.given()
    loss = given.pop("loss_config", None) or LossConfig()
    training = given.pop("training_config", None)
    given |= training.given() if training else {}
    job_id = checked_id(job_id, "dpoJobId")
    return Wanted(
        collection=DPO_JOBS,
        job_id=job_id,
        given={**settings_of(given, job_id), "preference": chosen_loss(loss)},
        wandb=newer_wandb(given),
        templates={"preference": {"jinja_template": given.get("jinja_template", "")}},
        defaults=preference_defaults,
        words={
            name: word if name in NOT_OF_THE_JOB else f"trainingConfig.{word}" for name, word in WORDS.items()
        },
    )


def preference_defaults(model_id: str, parameter_count: int, context_length: int) -> Defaults:
    """Preferences are learned at a tenth of the rate of examples: both answers are likely before they are."""
    own = newer_defaults(model_id, parameter_count, context_length)
    return own.model_copy(update={"learning_rate": own.learning_rate / 10})


def chosen_loss(loss: LossConfig) -> dict[str, Any]:
    """The method and its one setting, as the trainer knows them."""
    method = "DPO" if loss.method == "METHOD_UNSPECIFIED" else loss.method
    if method not in ("DPO", "ORPO"):
        raise invalid(
            f"lossConfig.method {method} is not supported: it is a method of reinforcement learning; "
            "pairs of answers are learned by DPO or ORPO",
            "lossConfig.method",
        )
    other = "orpo" if method == "DPO" else "dpo"
    if getattr(loss, other) is not None:
        raise invalid(f"lossConfig.{other} has no effect: the method is {method}", f"lossConfig.{other}")
    if method == "ORPO":
        weight = getattr(loss.orpo, "lambda", 0) or DEFAULT_ODDS_WEIGHT
        return {"method": "orpo", "odds_weight": weight}
    return {"method": "dpo", "beta": (loss.dpo.beta if loss.dpo else 0) or DEFAULT_BETA}
