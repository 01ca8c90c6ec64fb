"""Fine-tuning jobs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CliError
from cli.job_settings import job_request, read_settings
from cli.options import Fields, Flag, Kind
from cli.output import span
from cli.registry import command
from cli.resources import short_id
from cli.session import Session
from cli.waiting import Verdict, WaitFailed, state_line, state_of, status_of, wait_for

_FLAGS = (
    Flag("base-model", "baseModel", "The base model to start from."),
    Flag("warm-start-from", "warmStartFrom", "A LoRA adapter to go on from, in place of a base model."),
    Flag("dataset", "dataset", "The dataset's id."),
    Flag("display-name", "displayName", "A name for people."),
    Flag("job-id", "jobId", "The job's id; made up by default."),
    Flag("model-id", "modelId", "The id of the model that comes out; made up by default."),
    Flag("epochs", "epochs", "Passes over the dataset; fractions are fine.", Kind.NUMBER),
    Flag("learning-rate", "learningRate", "The learning rate.", Kind.NUMBER),
    Flag("lr-scheduler-type", "lrSchedulerType", "How the learning rate changes, such as cosine."),
    Flag("warmup-steps", "warmupSteps", "Steps until the learning rate is reached.", Kind.INTEGER),
    Flag("batch-size", "batchSize", "Examples for each step; a power of 2.", Kind.INTEGER),
    Flag("micro-batch-size", "microBatchSize", "Examples on the GPU at a time.", Kind.INTEGER),
    Flag("lora-rank", "loraRank", "The rank of the adapter.", Kind.INTEGER),
    Flag("lora-alpha", "loraAlpha", "The scale of the adapter.", Kind.INTEGER),
    Flag("lora-target-modules", "loraTargetModules", "The modules that it adapts.", Kind.WORDS),
    Flag("cutoff-length", "cutoffLength", "The most tokens of an example.", Kind.INTEGER),
    Flag("early-stop", "earlyStop", "Stop when the evaluation gets no better.", Kind.SWITCH),
    Flag("evaluation", "evaluation", "Measure the model on a part of the dataset.", Kind.SWITCH),
    Flag("evaluation-split", "evaluationSplit", "How large that part is, such as 0.15.", Kind.NUMBER),
    Flag("evaluation-dataset", "evaluationDataset", "A dataset to measure it on."),
    Flag("wandb-entity", "wandbEntity", "The Weights & Biases entity to report to."),
    Flag("wandb-project", "wandbProject", "The Weights & Biases project."),
    Flag("wandb-api-key", "wandbApiKey", "Its key; by default that of WANDB_API_KEY."),
)


@command("create", "fine-tuning-job", flags=_FLAGS)
def create_fine_tuning_job(
    session: Session,
    fields: Fields,
    settings_file: Annotated[Path | None, typer.Option(help="A YAML file; flags win over it.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="text_completion, text_classification or conversation.")
    ] = None,
    conversation_template: Annotated[str | None, typer.Option(help="A Jinja template for the chat.")] = None,
    input_template: Annotated[str | None, typer.Option(help="The prompt, with {fields} of a row.")] = None,
    output_template: Annotated[str | None, typer.Option(help="The answer, with {fields} of a row.")] = None,
    text: Annotated[str | None, typer.Option(help="The field with the text to classify.")] = None,
    label: Annotated[str | None, typer.Option(help="The field with its label.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", "-w", help="Wait until it is done.", show_default=False)
    ] = False,
    wait_timeout: Annotated[
        str, typer.Option("--wait-timeout", help="How long to wait at most.", metavar="DURATION")
    ] = "168h",
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
    _add_wandb_key(body)
    query = {"fineTuningJobId": job_id} if job_id else {}
    job = session.client.call("POST", session.parent("fine-tuning-job"), query=query, body=body)
    _show_created(session, job, wait)
    if wait:
        _show_completed(session, _wait_for_job(session, str(job["name"]), wait_timeout))


def _add_wandb_key(body: dict[str, Any]) -> None:
    key = os.environ.get("WANDB_API_KEY")
    if key and body.get("wandbProject"):
        body.setdefault("wandbApiKey", key)


def _show_created(session: Session, job: Mapping[str, Any], wait: bool) -> None:
    short = short_id(str(job.get("name", "")))
    if not session.output.as_json:
        session.output.line(short)
        session.output.stdout.flush()
    elif not wait:
        session.output.resource(job)
    if not wait:
        session.output.note(f"Watch it with: firectl get fine-tuning-job {short}")


def _show_completed(session: Session, job: Mapping[str, Any]) -> None:
    model = str(job.get("modelId") or "")
    name = session.name("model", model) if model else "the model"
    session.output.note(f"Completed: {name}")
    session.output.note(f"Deploy it with: firectl deploy {short_id(name)} --deployment-id DEPLOYMENT --wait")
    base = job.get("baseModel")
    if base:
        session.output.note(
            f"If there is no deployment yet: firectl create deployment {base} --enable-addons --wait"
        )
    if session.output.as_json:
        session.output.resource(job)


def _wait_for_job(session: Session, name: str, timeout: str) -> dict[str, Any]:
    short = short_id(name)
    lives_on = [
        f"watch it: firectl get fine-tuning-job {short}",
        f"delete it: firectl delete fine-tuning-job {short}",
    ]
    try:
        return wait_for(session, name, judge_job, timeout=timeout, lives_on=lives_on)
    except WaitFailed as failure:
        failure.details += _last_steps(session, name)
        failure.advice.append(f"firectl get fine-tuning-job {short} shows its settings")
        raise


def judge_job(job: Mapping[str, Any] | None) -> Verdict:
    """Completed, failed, or running, with its progress."""
    if job is None:
        return Verdict("", failure="the job was deleted")
    state = state_of(job)
    if state == "COMPLETED":
        return Verdict(state, done=True)
    if state in ("FAILED", "CANCELLED", "EXPIRED", "DELETING", "DELETED"):
        code, message = status_of(job)
        return Verdict(state, failure=f"the job is {state}: {message or code}")
    return Verdict(state_line(job, *_progress_words(job.get("progress") or {})))


def _progress_words(progress: Mapping[str, Any]) -> list[str]:
    """Phase, step, loss, speed and time left, as far as they are known."""
    words = [str(progress.get("phase") or "").lower()]
    step, most = progress.get("step"), progress.get("maxSteps")
    if most:
        words.append(f"step {step or 0}/{most}")
    if progress.get("loss") is not None:
        words.append(f"loss {float(progress['loss']):.4f}")
    if progress.get("tokensPerSecond"):
        words.append(f"{float(progress['tokensPerSecond']):,.0f} tokens/s")
    if progress.get("etaSeconds"):
        words.append(f"{span(float(progress['etaSeconds']))} left")
    return words


def _last_steps(session: Session, name: str) -> list[str]:
    """The last lines that the job logged, when it came as far as logging any."""
    try:
        logged = session.client.get(f"{name}:metrics").get("metrics") or []
    except CliError:
        return []  # the failure itself is what matters; it is told already
    return [
        "  ".join(f"{key} {value}" for key, value in entry.items())
        for entry in logged[-5:]
        if isinstance(entry, Mapping)
    ]
