"""What the commands of both kinds of fine-tuning jobs have in common: telling of a job, and following it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CliError
from cli.resources import short_id
from cli.show.money import dollars
from cli.show.readable import byte_size, span
from cli.show.waiting import Verdict, WaitFailed, state_line, state_of, status_of, wait_for

NEWER = frozenset({"supervised-fine-tuning-job", "dpo-job"})
"""They keep their metrics in a file of which they tell the address."""
SUCCEEDED = frozenset({"COMPLETED", "EARLY_STOPPED"})
ENDED = frozenset({"FAILED", "CANCELLED", "EXPIRED", "DELETING", "DELETED", "DELETING_CLEANING_UP"})
RESUMABLE = frozenset({"FAILED", "CANCELLED", "PAUSED"})
HOPELESS_CODES = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION"})
"""A job that failed with one of these would only fail again, and the server does not resume it."""
_LAST_STEPS = 5

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id or name.")]
MetricsFile = Annotated[Path | None, typer.Option("--filename", help="The file to write; a .csv is CSV.")]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", help="Get the picture of loss and evaluations instead: a file in .svg or .png."),
]
MetricsFormat = Annotated[str | None, typer.Option("--format", help="jsonl (a JSON object a line) or csv.")]


def start(session: Session, noun: str, query: Mapping[str, Any], body: Any, wait_timeout: str | None) -> None:
    """Creates a job and prints its id; with a timeout, follows it to its model."""
    job = session.client.call("POST", session.parent(noun), query=query, body=body)
    show_created(session, noun, job, wait=wait_timeout is not None)
    if wait_timeout is not None:
        follow(session, noun, str(job["name"]), wait_timeout)


def follow(session: Session, noun: str, name: str, timeout: str) -> None:
    """Waits for a job's model, and tells how to use it."""
    show_completed(session, wait_for_job(session, noun, name, timeout))


def show_created(session: Session, noun: str, job: Mapping[str, Any], *, wait: bool) -> None:
    """Prints the id at once, so that it is known when the wait is cut short; JSON is the last state."""
    short = short_id(str(job.get("name", "")))
    if not session.output.as_json:
        session.output.line(short)
        session.output.stdout.flush()
    elif not wait:
        session.output.resource(job)
    if not wait:
        session.output.note(f"Watch it with: firectl get {noun} {short} --watch")


def show_completed(session: Session, job: Mapping[str, Any]) -> None:
    """What came out, and how to put it to use."""
    settings = job.get("trainingConfig") or job
    model = str(job.get("modelId") or settings.get("outputModel") or "")
    name = session.name("model", model) if model else "the model"
    session.output.note(f"Completed: {name}")
    session.output.note(f"Deploy it with: firectl deploy {short_id(name)} --deployment-id DEPLOYMENT --wait")
    base = settings.get("baseModel")
    if base:
        session.output.note(
            f"If there is no deployment yet: firectl create deployment {base} --enable-addons --wait"
        )
    if session.output.as_json:
        session.output.resource(job)


def show_estimate(session: Session, noun: str, body: Mapping[str, Any]) -> None:
    """What such a job would cost."""
    answer = session.client.call("POST", f"{session.parent(noun)}:estimateCost", body=body)
    if session.output.as_json:
        session.output.resource(answer)
    else:
        session.output.line(f"Estimated Cost: {dollars(answer.get('estimatedCost'))}")


def wait_for_job(session: Session, noun: str, name: str, timeout: str) -> dict[str, Any]:
    """Follows a job to its end; a failure comes with the last that it logged."""
    short = short_id(name)
    lives_on = [f"watch it: firectl get {noun} {short} --watch", f"stop it: firectl cancel {noun} {short}"]
    try:
        return wait_for(session, name, judge_job, timeout=timeout, lives_on=lives_on)
    except WaitFailed as failure:
        failure.details += _last_steps(session, noun, name)
        failure.advice += _after_failure(noun, short, failure.resource)
        raise


def judge_job(job: Mapping[str, Any] | None) -> Verdict:
    """Completed, failed, or running, with its progress."""
    if job is None:
        return Verdict("", failure="the job was deleted")
    state = state_of(job)
    if state in SUCCEEDED:
        return Verdict(state, done=True)
    if state in ENDED | RESUMABLE:
        code, message = status_of(job)
        return Verdict(state, failure=f"the job is {state}: {message or code}")
    return Verdict(state_line(job, *progress_words(job)))


def judge_stopped(job: Mapping[str, Any] | None) -> Verdict:
    """Whether a job that was asked to stop has done so."""
    if job is None or state_of(job) in ENDED | SUCCEEDED:
        return Verdict(state_of(job) if job else "gone", done=True)
    return Verdict(state_line(job))


def judge_paused(job: Mapping[str, Any] | None) -> Verdict:
    """Whether a job that was asked to pause has done so, or has come to its end before."""
    if job is not None and state_of(job) == "PAUSED":
        return Verdict("PAUSED", done=True)
    return judge_stopped(job)


def progress_words(job: Mapping[str, Any]) -> list[str]:
    """How far a job is, as far as it is known."""
    progress = job.get("jobProgress") or job.get("progress") or {}
    words = [str(progress.get("phase") or "").lower()]
    if "percent" in progress:
        words.append(f"{progress['percent'] or 0}%")
    words += _counts(progress)
    known = {name: told for name, told in progress.items() if told not in (None, "0")}
    words += [form(float(known[name])) for name, form in _MEASURES.items() if name in known]
    return words


def _counts(progress: Mapping[str, Any]) -> list[str]:
    """Steps or, before they are known, rows; and tokens."""
    words = []
    if steps := progress.get("maxSteps"):
        words.append(f"step {progress.get('step') or 0}/{steps}")
    elif rows := progress.get("totalInputRequests"):
        words.append(f"row {progress.get('totalProcessedRequests') or 0:,}/{rows:,}")
    if tokens := progress.get("inputTokens"):
        words.append(f"{int(tokens):,} tokens")
    return words


_MEASURES: Mapping[str, Callable[[float], str]] = {
    "loss": lambda loss: f"loss {loss:.4f}",
    "learningRate": lambda rate: f"rate {rate:.3g}",
    "gradNorm": lambda norm: f"gradient {norm:.3g}",
    "tokensPerSecond": lambda speed: f"{speed:,.0f} tokens/s",
    "peakMemoryBytes": lambda size: f"memory {byte_size(size)}",
    "gpuMemoryBytes": lambda size: f"accelerator {byte_size(size)}",
    "etaSeconds": lambda seconds: f"{span(seconds)} left",
}


def _after_failure(noun: str, short: str, job: Mapping[str, Any]) -> list[str]:
    state, code = state_of(job), status_of(job)[0]
    shows = [f"firectl logs {short} --tail 20", f"firectl get {noun} {short}"]
    if state in RESUMABLE and not (state == "FAILED" and code in HOPELESS_CODES):
        return [f"go on from its last checkpoint: firectl resume {noun} {short}", *shows]
    return shows if state else [f"firectl list {noun}s"]


def _last_steps(session: Session, noun: str, name: str) -> list[str]:
    """The last lines that the job logged, when it came as far as logging any."""
    from cli.training.job_metrics import job_metrics

    try:
        logged = job_metrics(session, noun, name)
    except CliError:
        return []  # the failure itself is what matters; it is told already
    return ["  ".join(f"{key} {value}" for key, value in entry.items()) for entry in logged[-_LAST_STEPS:]]
