"""A dataset looked at as a job would read it, before anything is trained."""

import time
from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CliError, Interrupted, UsageError
from cli.language.flags import WaitTimeout, group
from cli.language.options import Fields, Flag, Kind, seconds
from cli.language.registry import command
from cli.show.waiting import StillGoing

_FLAGS = (
    Flag("base-model", "baseModel", "The base model to start from.", also=("--model", "-M")),
    Flag("warm-start-from", "warmStartFrom", "A LoRA adapter to go on from, in place of a base model."),
    Flag("evaluation-dataset", "evaluationDataset", "The dataset to measure the model on."),
    Flag("collection", "collection", "Whose defaults hold, such as supervisedFineTuningJobs."),
    *group(
        "Kind",
        Flag("jinja-template", "jinjaTemplate", "A Jinja template for the chat."),
        Flag("input-template", "textCompletion.inputTemplate", "What a row's prompt is made of."),
        Flag("output-template", "textCompletion.outputTemplate", "What a row's completion is made of."),
        Flag("text-field", "textClassification.text", "The field of the text to classify."),
        Flag("label-field", "textClassification.label", "The field of its label."),
    ),
    *group(
        "Settings",
        Flag("max-context-length", "maxContextLength", "The most tokens of a row.", Kind.INTEGER),
        Flag("epochs", "epochs", "Passes over the dataset.", Kind.NUMBER),
        Flag("batch-size", "batchSize", "Tokens of a batch, packed with whole rows.", Kind.INTEGER),
        Flag("batch-size-samples", "batchSizeSamples", "Rows of a batch, instead.", Kind.INTEGER),
        Flag("gradient-accumulation-steps", "gradientAccumulationSteps", "Batches a step.", Kind.INTEGER),
        Flag("lora-rank", "loraRank", "The rank of the adapter.", Kind.INTEGER),
        Flag("eval-auto-carveout", "evalAutoCarveout", "Hold rows out to measure on.", Kind.SWITCH),
        Flag("evaluation-split", "evaluationSplit", "How large that part is, such as 0.15.", Kind.NUMBER),
    ),
)
_PAUSE_SECONDS = 1.0
_ROWS = typer.Option("--rows", help="How many rows to show, as they are trained.", min=0, max=50)
_ROW = typer.Option("--row", help="Show this row, counted from 1.", min=1)


@command(
    "inspect",
    "dataset",
    flags=_FLAGS,
    example="firectl inspect dataset my-dataset --base-model my-model --rows 3",
    see_also=("create dataset", "create supervised-fine-tuning-job", "create fine-tuning-job"),
)
def inspect_dataset(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The dataset's id or name.")],
    fields: Fields,
    rows: Annotated[int, _ROWS] = 3,
    row: Annotated[int | None, _ROW] = None,
    wait_timeout: WaitTimeout = "10m",
) -> None:
    """Tell what training on a dataset would meet: tokens, steps, cost, and everything that is odd in it.

    Nothing is trained. Shows rows as the model sees them: what it learns, and what it only reads.
    """
    if not {"baseModel", "warmStartFrom"} & fields.body.keys():
        raise UsageError("name what is to be trained: --base-model MODEL, or --warm-start-from ADDON")
    shown = {"rowCount": 1, "firstRow": row} if row else {"rowCount": rows or 1}
    name = session.name("dataset", id)
    found = _report(session, name, {**fields.body, **shown}, wait_timeout)
    if not rows and not row:
        found["report"].pop("rows", None)
    if session.output.as_json:
        session.output.resource(found["report"])
        return
    session.output.inspection(found["report"])


def _report(session: Session, name: str, body: dict[str, Any], timeout: str) -> dict[str, Any]:
    """Asks until there is a report: each answer waits a while, and a large dataset takes longer."""
    deadline = time.monotonic() + seconds(timeout)
    again = [f"firectl inspect dataset {name} …"]
    try:
        while True:
            answer = session.client.call("POST", f"{name}:inspect", body=body)
            if answer.get("state") == "READY" or session.dry_run:
                return {"report": {}, **answer}
            if answer.get("state") != "PENDING":
                status = answer.get("status") or {}
                raise CliError(str(status.get("message") or "the dataset could not be inspected"))
            if time.monotonic() >= deadline:
                raise StillGoing(f"{name} is still being read; ask again", advice=again)
            session.output.note(f"Reading {name} …")
            time.sleep(_PAUSE_SECONDS)
    except KeyboardInterrupt:
        raise Interrupted("stopped waiting; the report is made all the same", advice=again) from None
