"""The checkpoints of fine-tuning jobs: listed, downloaded, and made models of."""

from pathlib import Path
from typing import Annotated

import typer

from cli.connection.session import Session
from cli.errors import UsageError
from cli.language.flags import WaitTimeout
from cli.language.registry import command
from cli.resources import RESOURCES, short_id
from cli.show.waiting import wait_for
from cli.training.finding import job_name
from cli.transfer.uploading import download, judge_upload

_Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="The checkpoint's id, such as sampler-100, or its name.")
]
_Job = Annotated[
    str | None, typer.Option("--job", help="The job that it is of, where only its id is given.", metavar="ID")
]


@command(
    "list",
    "checkpoint",
    example="firectl list checkpoints my-job",
    see_also=("promote checkpoint", "download checkpoint", "get fine-tuning-job"),
)
def list_checkpoints(
    session: Session, job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id or name.")]
) -> None:
    """List what a job's trainer has kept: to go on from, and to make models of."""
    name = job_name(session, job)
    pages = session.client.pages(f"{name}/checkpoints", "checkpoints", {"pageSize": 200})
    rows = [row for page, _token in pages for row in page]
    session.output.rows(RESOURCES["checkpoint"], rows, session.account_id, none=f"{name} has kept none")


@command(
    "promote",
    "checkpoint",
    example="firectl promote checkpoint sampler-100 --job my-job --output-model my-early-model",
    see_also=("list checkpoints", "get model", "deploy"),
)
def promote_checkpoint(
    session: Session,
    checkpoint: _Checkpoint,
    output_model: Annotated[str, typer.Option("--output-model", help="The model to make.", metavar="ID")],
    job: _Job = None,
    wait_timeout: WaitTimeout = "30m",
) -> None:
    """Make a model of a checkpoint; it is checked as an upload is."""
    name = _name(session, checkpoint, job)
    body = {"outputModel": output_model, "asyncPromotion": True}
    model = session.client.call("POST", f"{name}:promote", body=body).get("model") or {}
    lives_on = [f"firectl get model {output_model}", f"firectl delete model {output_model}"]
    if model:
        model = wait_for(session, str(model["name"]), judge_upload, timeout=wait_timeout, lives_on=lives_on)
    session.output.resource(model)
    session.output.note(
        f"Deploy it with: firectl deploy {short_id(output_model)} --deployment-id DEPLOYMENT --wait"
    )


@command(
    "download",
    "checkpoint",
    example="firectl download checkpoint checkpoint-120 ./checkpoint --job my-job",
    see_also=("list checkpoints", "promote checkpoint", "download model"),
)
def download_checkpoint(
    session: Session,
    checkpoint: _Checkpoint,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder to put the files in.")],
    job: _Job = None,
    quiet: bool = False,
) -> None:
    """Download a checkpoint's files into a folder."""
    download(session, _name(session, checkpoint, job), path, quiet)


def _name(session: Session, checkpoint: str, job: str | None) -> str:
    if checkpoint.startswith("accounts/"):
        return checkpoint
    if job is None:
        raise UsageError(f'of which job is "{checkpoint}"?', advice=["add --job ID, or give its full name"])
    return f"{job_name(session, job)}/checkpoints/{checkpoint}"
