"""Preference tuning jobs: pairs of answers, of which the better one is to become the likelier one."""

from typing import Any

from cli.connection.session import Session
from cli.language.flags import Wait, WaitTimeout, group
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.training import jobs
from cli.training.job_flags import (
    BUCKETS,
    DATASET,
    DISPLAY_NAME,
    EVALUATION,
    OUTPUT_MODEL,
    RESERVED,
    START,
    TRAINING,
    WANDB,
    within,
)
from cli.training.job_source import SourceJob, job_body

_NOUN = "dpo-job"
_PLACE = "trainingConfig"
_LORA = (
    Flag("lora-alpha", "loraAlpha", "The scale of the adapter; twice the rank by default.", Kind.INTEGER),
    Flag("lora-dropout", "loraDropout", "The dropout of the adapter.", Kind.NUMBER),
    Flag("lora-target-modules", "loraTargetModules", "The modules that it adapts.", Kind.WORDS),
)
_LOSS = (
    Flag("loss-method", "lossConfig.method", "DPO by default.", choices=("DPO", "ORPO")),
    Flag("beta", "lossConfig.dpo.beta", "Of DPO: how strongly the reference holds back.", Kind.NUMBER),
    Flag("lambda", "lossConfig.orpo.lambda", "Of ORPO: how much the odds count.", Kind.NUMBER),
)
_SETTINGS = (
    *within(_PLACE, START),
    DATASET,
    *within(_PLACE, (OUTPUT_MODEL,)),
    DISPLAY_NAME,
    Flag("priority", "priority", "Its place in the queue, -100 to 100; 0 by default.", Kind.INTEGER),
    *group("Training", *within(_PLACE, (*TRAINING, *_LORA)), *_LOSS, RESERVED),
    *EVALUATION,
    *WANDB,
    *BUCKETS,
)
_CREATE = (*_SETTINGS, Flag("job-id", "?dpoJobId", "The job's id; made up by default."))


@command(
    "create",
    _NOUN,
    flags=_CREATE,
    example="firectl create dpo-job --base-model my-model --dataset my-pairs --output-model polite",
    see_also=(f"get {_NOUN}", f"estimate-cost {_NOUN}", "create dataset"),
)
def create_dpo_job(
    session: Session,
    fields: Fields,
    source_job: SourceJob = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "168h",
) -> None:
    """Tune a model on pairs of answers, a better and a worse one each. Prints the job's id."""
    body = _request(session, fields.body, source_job)
    jobs.start(session, _NOUN, fields.query, body, wait_timeout if wait else None)


@command(
    "estimate-cost",
    _NOUN,
    flags=_SETTINGS,
    example="firectl estimate-cost dpo-job --base-model my-model --dataset my-pairs",
    see_also=(f"create {_NOUN}",),
)
def estimate_cost(session: Session, fields: Fields, source_job: SourceJob = None) -> None:
    """Tell what such a job would cost; nothing is created."""
    jobs.show_estimate(session, _NOUN, _request(session, fields.body, source_job))


def _request(session: Session, flags: dict[str, Any], source: str | None) -> dict[str, Any]:
    more = [flag.path for flag in within(_PLACE, _LORA)]
    if not flags.get("lossConfig", {}).get("method"):  # another method has other settings
        more += [flag.path for flag in _LOSS]
    return job_body(session, _NOUN, flags, source, f"{_PLACE}.", more)
