"""Supervised fine-tuning jobs: the newer collection, whose jobs can be cancelled and resumed."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CliError, UsageError
from cli.language.flags import Wait, WaitTimeout, group
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.resources import short_id
from cli.show.money import dollars
from cli.show.waiting import wait_for
from cli.training import jobs
from cli.training.jobs import JobId

_NOUN = "supervised-fine-tuning-job"
_SETTINGS = (
    Flag("base-model", "baseModel", "The base model to start from."),
    Flag("warm-start-from", "warmStartFrom", "A LoRA adapter to go on from, in place of a base model."),
    Flag("dataset", "dataset", "The dataset's id or name."),
    Flag("output-model", "outputModel", "The model that comes out; the job's id by default."),
    Flag("display-name", "displayName", "A name for people."),
    *group(
        "Training",
        Flag("epochs", "epochs", "Passes over the dataset.", Kind.INTEGER),
        Flag("learning-rate", "learningRate", "The learning rate.", Kind.NUMBER),
        Flag("learning-rate-warmup-steps", "learningRateWarmupSteps", "Steps to reach it.", Kind.INTEGER),
        Flag("max-context-length", "maxContextLength", "The most tokens of a row.", Kind.INTEGER),
        Flag("batch-size", "batchSize", "Tokens of a batch, packed with whole rows.", Kind.INTEGER),
        Flag("batch-size-samples", "batchSizeSamples", "Rows of a batch, instead.", Kind.INTEGER),
        Flag("gradient-accumulation-steps", "gradientAccumulationSteps", "Batches a step.", Kind.INTEGER),
        Flag("lora-rank", "loraRank", "The rank of the adapter; 8 by default.", Kind.INTEGER),
        Flag("optimizer-weight-decay", "optimizerWeightDecay", "The weight decay.", Kind.NUMBER),
        Flag("jinja-template", "jinjaTemplate", "A Jinja template for the chat."),
        Flag("turbo", "isTurbo", "Train faster, on more accelerators.", Kind.SWITCH),
        Flag("nodes", "nodes", "Machines to train on.", Kind.INTEGER),
        Flag("mtp-enable", "mtpEnabled", "Train multi-token prediction.", Kind.SWITCH),
        Flag("mtp-num-draft-tokens", "mtpNumDraftTokens", "Tokens that it predicts.", Kind.INTEGER),
        Flag("mtp-freeze-base-model", "mtpFreezeBaseModel", "Train nothing else.", Kind.SWITCH),
        Flag("use-reservation", "useReservation", "Train on reserved capacity.", Kind.SWITCH),
    ),
    *group(
        "Evaluation",
        Flag("evaluation-dataset", "evaluationDataset", "A dataset to measure the model on."),
        Flag("eval-auto-carveout", "evalAutoCarveout", "Measure it on a part of the dataset.", Kind.SWITCH),
        Flag("early-stop", "earlyStop", "Stop when the evaluation gets no better.", Kind.SWITCH),
    ),
    *group(
        "Weights & Biases",
        Flag("wandb", "wandbConfig.enabled", "Report there.", Kind.SWITCH),
        Flag("wandb-api-key", "wandbConfig.apiKey", "A key; by default that of WANDB_API_KEY."),
        Flag("wandb-project", "wandbConfig.project", "The project; by default that of WANDB_PROJECT."),
        Flag("wandb-entity", "wandbConfig.entity", "The entity; by default that of WANDB_ENTITY."),
    ),
    *group(
        "Data in buckets",
        Flag("aws-credentials-secret", "awsS3Config.credentialsSecret", "A secret to read S3 with."),
        Flag("aws-iam-role", "awsS3Config.iamRoleArn", "Or a role.", also=("--aws-iam-role-arn",)),
        Flag("azure-credentials-secret", "azureBlobStorageConfig.credentialsSecret", "The same for Azure."),
        Flag(
            "azure-managed-identity-client-id",
            "azureBlobStorageConfig.managedIdentityClientId",
            "Or a managed identity.",
        ),
        Flag("azure-tenant-id", "azureBlobStorageConfig.tenantId", "The identity's tenant."),
    ),
)
_CREATE = (*_SETTINGS, Flag("job-id", "?supervisedFineTuningJobId", "The job's id; made up by default."))
# What `--source-job` takes over: everything that says how to train, and nothing that says what came of it.
_COPIED = (
    *("dataset", "baseModel", "warmStartFrom", "evaluationDataset", "evalAutoCarveout", "earlyStop"),
    *("epochs", "learningRate", "learningRateWarmupSteps", "maxContextLength", "loraRank", "jinjaTemplate"),
    *("batchSize", "batchSizeSamples", "gradientAccumulationSteps", "optimizerWeightDecay", "displayName"),
)
# Naming one of a pair replaces the other one of the source.
_INSTEAD = (
    ("baseModel", "warmStartFrom"),
    ("batchSize", "batchSizeSamples"),
    ("evaluationDataset", "evalAutoCarveout"),
)
_WANDB = {"apiKey": "WANDB_API_KEY", "project": "WANDB_PROJECT", "entity": "WANDB_ENTITY"}
SourceJob = Annotated[
    str | None, typer.Option("--source-job", help="An earlier job to take settings from; flags win over it.")
]
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
    answer = session.client.call("POST", f"{session.parent(_NOUN)}:estimateCost", body=body)
    if session.output.as_json:
        session.output.resource(answer)
    else:
        session.output.line(f"Estimated Cost: {dollars(answer.get('estimatedCost'))}")


@command(
    "cancel",
    _NOUN,
    example="firectl cancel supervised-fine-tuning-job my-job",
    see_also=(f"resume {_NOUN}", f"delete {_NOUN}"),
)
def cancel(session: Session, id: JobId, wait: Wait = False, wait_timeout: WaitTimeout = "30m") -> None:
    """Stop a job; what it has learned is kept, and it can be resumed."""
    name = session.name(_NOUN, id)
    short = short_id(name)
    session.client.call("POST", f"{name}:cancel", body={})
    if wait:
        watch = [f"firectl get {_NOUN} {short}"]
        job = wait_for(session, name, jobs.judge_stopped, timeout=wait_timeout, lives_on=watch)
    else:
        job = session.client.get(name)
    session.output.resource(job)
    session.output.note(f"Go on with it: firectl resume {_NOUN} {short}")


@command(
    "resume",
    _NOUN,
    example="firectl resume supervised-fine-tuning-job my-job",
    see_also=(f"cancel {_NOUN}", f"get {_NOUN}"),
)
def resume(session: Session, id: JobId, wait: Wait = False, wait_timeout: WaitTimeout = "168h") -> None:
    """Go on with a job that was cancelled or has failed, from its last checkpoint."""
    name = session.name(_NOUN, id)
    job = session.client.call("POST", f"{name}:resume", body={})
    if wait:
        jobs.follow(session, _NOUN, name, wait_timeout)
    else:
        session.output.resource(job)
        session.output.note(f"Watch it with: firectl get {_NOUN} {short_id(name)} --watch")


@command(
    "export-metrics",
    _NOUN,
    example="firectl export-metrics supervised-fine-tuning-job my-job --filename metrics.csv",
    see_also=(f"get {_NOUN}",),
)
def export_metrics(
    session: Session, id: JobId, filename: jobs.MetricsFile = None, format: jobs.MetricsFormat = None
) -> None:
    """Give out what a job's trainer has logged, a record a step."""
    from cli.training.job_metrics import export

    export(session, _NOUN, id, filename, format)


def _request(
    session: Session, flags: dict[str, Any], source: str | None, all_parameters: bool
) -> dict[str, Any]:
    """The body of a job: its source's settings, with the flags laid over them."""
    if all_parameters:
        if flags.get("loraRank"):
            raise UsageError("--full-parameter-tuning trains no adapter; leave --lora-rank out")
        flags = {**flags, "loraRank": 0}
    _fill_wandb(flags)
    body = {**_settings_of(session, source, flags), **flags}
    _require(body)
    return body


def _settings_of(session: Session, source: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    if source is None:
        return {}
    # A dry run looks it up too: the request that it shows is made of it.
    session.ask_account()
    job = session.client.look(session.name(_NOUN, source))
    settings = {key: job[key] for key in _COPIED if job.get(key)}
    for pair in _INSTEAD:
        for one, other in (pair, pair[::-1]):
            if flags.get(one):
                settings.pop(other, None)
    return settings


def _fill_wandb(flags: dict[str, Any]) -> None:
    """What was not said of Weights & Biases, from the environment, once anything of it was asked for."""
    asked = flags.get("wandbConfig")
    if not asked or asked.get("enabled") is False:
        return
    asked["enabled"] = True
    for key, variable in _WANDB.items():
        if os.environ.get(variable):
            asked.setdefault(key, os.environ[variable])


def _require(body: Mapping[str, Any]) -> None:
    """What no server can make up: told here, with the flag to type."""
    if not body.get("dataset"):
        raise CliError("the job has no dataset", advice=["add --dataset ID", "firectl list datasets"])
    if not body.get("baseModel") and not body.get("warmStartFrom"):
        raise CliError(
            "the job has no model to start from",
            advice=["add --base-model accounts/ACCOUNT/models/MODEL", "firectl list models"],
        )
