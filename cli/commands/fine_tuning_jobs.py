"""Fine-tuning jobs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.language.flags import Wait, WaitTimeout, group
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.training import jobs
from cli.training.job_settings import KINDS, job_request, read_settings
from cli.training.jobs import JobId

_NOUN = "fine-tuning-job"
_KIND = "Kind"
_PRIORITY = Flag("priority", "priority", "Its place in the queue, -100 to 100; 0 by default.", Kind.INTEGER)
_FLAGS = (
    Flag("base-model", "baseModel", "The base model to start from."),
    Flag("warm-start-from", "warmStartFrom", "A LoRA adapter to go on from, in place of a base model."),
    Flag("dataset", "dataset", "The dataset's id or name."),
    Flag("display-name", "displayName", "A name for people."),
    Flag("job-id", "jobId", "The job's id; made up by default."),
    Flag("model-id", "modelId", "The id of the model that comes out; made up by default."),
    _PRIORITY,
    *group(
        "Training",
        Flag("epochs", "epochs", "Passes over the dataset; fractions are fine.", Kind.NUMBER),
        Flag("learning-rate", "learningRate", "The learning rate.", Kind.NUMBER),
        Flag("lr-scheduler-type", "lrSchedulerType", "How the learning rate changes, such as cosine."),
        Flag("warmup-steps", "warmupSteps", "Steps until the learning rate is reached.", Kind.INTEGER),
        Flag("batch-size", "batchSize", "Examples for each step; a power of 2.", Kind.INTEGER),
        Flag("micro-batch-size", "microBatchSize", "Examples on the GPU at a time.", Kind.INTEGER),
        Flag("lora-rank", "loraRank", "The rank of the adapter.", Kind.INTEGER),
        Flag("lora-alpha", "loraAlpha", "The scale of the adapter.", Kind.INTEGER),
        Flag("lora-target-modules", "loraTargetModules", "The modules that it adapts.", Kind.WORDS),
        Flag("lora-dropout", "loraDropout", "What share of its input is left out.", Kind.NUMBER),
        Flag("tuning-method", "tuningMethod", "LORA, or QLORA: with the base in four bits."),
        Flag("weight-decay", "weightDecay", "How much weights are pulled to nothing.", Kind.NUMBER),
        Flag(
            "gradient-accumulation-steps",
            "gradientAccumulationSteps",
            "Batches of one step of the optimizer.",
            Kind.INTEGER,
        ),
        Flag("accelerator-count", "acceleratorCount", "Accelerators to train on together.", Kind.INTEGER),
        Flag("seed", "seed", "Of everything random.", Kind.INTEGER),
        Flag("cutoff-length", "cutoffLength", "The most tokens of an example.", Kind.INTEGER),
        Flag("draft-base-model", "draftModel.baseModel", "A draft model to train too."),
    ),
    *group(
        "Evaluation",
        Flag("early-stop", "earlyStop", "Stop when the evaluation gets no better.", Kind.SWITCH),
        Flag("evaluation", "evaluation", "Measure the model on a part of the dataset.", Kind.SWITCH),
        Flag("evaluation-split", "evaluationSplit", "How large that part is, such as 0.15.", Kind.NUMBER),
        Flag("evaluation-dataset", "evaluationDataset", "A dataset to measure it on."),
    ),
    *group(
        "Weights & Biases",
        Flag("wandb-entity", "wandbEntity", "The entity to report to."),
        Flag("wandb-project", "wandbProject", "The project to report to."),
        Flag("wandb-api-key", "wandbApiKey", "A key; by default that of WANDB_API_KEY."),
    ),
)
_KIND_HELP = "What the examples are."


@command(
    "create",
    _NOUN,
    flags=_FLAGS,
    example="firectl create fine-tuning-job --dataset my-dataset --base-model my-model --kind conversation",
    see_also=("get fine-tuning-job", "create dataset", "create supervised-fine-tuning-job"),
)
def create_fine_tuning_job(
    session: Session,
    fields: Fields,
    settings_file: Annotated[Path | None, typer.Option(help="A YAML file; flags win over it.")] = None,
    kind: Annotated[
        str | None, typer.Option(help=_KIND_HELP, metavar="|".join(KINDS), rich_help_panel=_KIND)
    ] = None,
    conversation_template: Annotated[
        str | None, typer.Option(help="A Jinja template for the chat.", rich_help_panel=_KIND)
    ] = None,
    input_template: Annotated[
        str | None, typer.Option(help="The prompt, with {fields} of a row.", rich_help_panel=_KIND)
    ] = None,
    output_template: Annotated[
        str | None, typer.Option(help="The answer, with {fields} of a row.", rich_help_panel=_KIND)
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The field with the text to classify.", rich_help_panel=_KIND)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="The field with its label.", rich_help_panel=_KIND)
    ] = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "168h",
) -> None:
    """Fine-tune a model on a dataset. Prints the job's id."""
    given = {
        "jinjaTemplate": conversation_template,
        "inputTemplate": input_template,
        "outputTemplate": output_template,
        "text": text,
        "label": label,
    }
    kind_fields = {key: value for key, value in given.items() if value is not None}
    settings = read_settings(settings_file) if settings_file else {}
    body, job_id = job_request(settings, fields.body, kind, kind_fields)
    if os.environ.get("WANDB_API_KEY") and body.get("wandbProject"):
        body.setdefault("wandbApiKey", os.environ["WANDB_API_KEY"])
    query = {"fineTuningJobId": job_id} if job_id else {}
    jobs.start(session, _NOUN, query, body, wait_timeout if wait else None)


@command(
    "update",
    _NOUN,
    flags=(Flag("display-name", "displayName", "A name for people."), _PRIORITY),
    example='firectl update fine-tuning-job my-job --display-name "Second try"',
    see_also=("get fine-tuning-job",),
)
def update_fine_tuning_job(session: Session, id: JobId, fields: Fields) -> None:
    """Change a fine-tuning job's display name or, while it waits, its priority."""
    standard.update(session, _NOUN, id, fields)
