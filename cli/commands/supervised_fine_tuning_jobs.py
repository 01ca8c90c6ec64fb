"""Supervised fine-tuning jobs: the newer collection."""

from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import UsageError
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
)
from cli.training.job_source import SourceJob, job_body

_NOUN = "supervised-fine-tuning-job"
_SETTINGS = (
    *START,
    DATASET,
    OUTPUT_MODEL,
    DISPLAY_NAME,
    *group(
        "Training",
        *TRAINING,
        Flag("turbo", "isTurbo", "Train faster, on more accelerators.", Kind.SWITCH),
        Flag("nodes", "nodes", "Machines to train on.", Kind.INTEGER),
        Flag("mtp-enable", "mtpEnabled", "Train multi-token prediction.", Kind.SWITCH),
        Flag("mtp-num-draft-tokens", "mtpNumDraftTokens", "Tokens that it predicts.", Kind.INTEGER),
        Flag("mtp-freeze-base-model", "mtpFreezeBaseModel", "Train nothing else.", Kind.SWITCH),
        RESERVED,
    ),
    *EVALUATION,
    *WANDB,
    *BUCKETS,
)
_CREATE = (*_SETTINGS, Flag("job-id", "?supervisedFineTuningJobId", "The job's id; made up by default."))
FullParameters = Annotated[
    bool,
    typer.Option(
        "--full-parameter-tuning/--no-full-parameter-tuning",
        help="Train all weights, not an adapter; the same as --lora-rank 0.",
        show_default=False,
    ),
]


@command(
    "create",
    _NOUN,
    flags=_CREATE,
    example="firectl create supervised-fine-tuning-job --base-model my-model --dataset my-dataset",
    see_also=(f"get {_NOUN}", f"estimate-cost {_NOUN}", "create dataset"),
)
def create_supervised_fine_tuning_job(
    session: Session,
    fields: Fields,
    source_job: SourceJob = None,
    full_parameter_tuning: FullParameters = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "168h",
) -> None:
    """Fine-tune a model on a dataset. Prints the job's id."""
    body = _request(session, fields.body, source_job, full_parameter_tuning)
    jobs.start(session, _NOUN, fields.query, body, wait_timeout if wait else None)


@command(
    "estimate-cost",
    _NOUN,
    flags=_SETTINGS,
    example="firectl estimate-cost supervised-fine-tuning-job --base-model my-model --dataset my-dataset",
    see_also=(f"create {_NOUN}",),
)
def estimate_cost(
    session: Session,
    fields: Fields,
    source_job: SourceJob = None,
    full_parameter_tuning: FullParameters = False,
) -> None:
    """Tell what such a job would cost; nothing is created."""
    body = _request(session, fields.body, source_job, full_parameter_tuning)
    jobs.show_estimate(session, _NOUN, body)


def _request(
    session: Session, flags: dict[str, Any], source: str | None, all_parameters: bool
) -> dict[str, Any]:
    if all_parameters:
        if flags.get("loraRank"):
            raise UsageError("--full-parameter-tuning trains no adapter; leave --lora-rank out")
        flags = {**flags, "loraRank": 0}
    return job_body(session, _NOUN, flags, source)
