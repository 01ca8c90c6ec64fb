"""cancel, pause, resume and export-metrics, the same for every kind of fine-tuning job."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cli.connection.session import Session
from cli.language.flags import Wait, WaitTimeout
from cli.language.registry import command
from cli.resources import JOBS, short_id
from cli.show.waiting import Verdict, state_of, wait_for
from cli.training import jobs
from cli.training.jobs import JobId


@dataclass(frozen=True)
class Stop:
    """A way to stop a job; `judge` tells when it has stopped."""

    verb: str
    help: str
    other: str
    judge: Callable[[Any], Verdict]


STOPS = (
    Stop(
        "cancel",
        "Stop a job; it can be resumed from its last checkpoint.",
        "pause",
        jobs.judge_stopped,
    ),
    Stop(
        "pause",
        "Stop a job for a while; others get its place.",
        "cancel",
        jobs.judge_paused,
    ),
)


def _register_stop(noun: str, stop: Stop) -> None:
    @command(
        stop.verb,
        noun,
        help=stop.help,
        example=f"firectl {stop.verb} {noun} my-job",
        see_also=(f"resume {noun}", f"{stop.other} {noun}", f"delete {noun}"),
    )
    def stop_job(session: Session, id: JobId, wait: Wait = False, wait_timeout: WaitTimeout = "30m") -> None:
        name = session.name(noun, id)
        short = short_id(name)
        session.client.call("POST", f"{name}:{stop.verb}", body={})
        if wait:
            watch = [f"firectl get {noun} {short}"]
            job = wait_for(session, name, stop.judge, timeout=wait_timeout, lives_on=watch)
        else:
            job = session.client.get(name)
        session.output.resource(job)
        if state_of(job) not in jobs.SUCCEEDED:  # it may have come to its end before it stopped
            session.output.note(f"Go on with it: firectl resume {noun} {short}")


def _register_resume(noun: str) -> None:
    @command(
        "resume",
        noun,
        help="Go on with a job that was paused or cancelled, or has failed, from its last checkpoint.",
        example=f"firectl resume {noun} my-job",
        see_also=(f"pause {noun}", f"cancel {noun}", f"get {noun}"),
    )
    def resume(session: Session, id: JobId, wait: Wait = False, wait_timeout: WaitTimeout = "168h") -> None:
        name = session.name(noun, id)
        job = session.client.call("POST", f"{name}:resume", body={})
        if wait:
            jobs.follow(session, noun, name, wait_timeout)
        else:
            session.output.resource(job)
            session.output.note(f"Watch it with: firectl get {noun} {short_id(name)} --watch")


def _register_export(noun: str) -> None:
    @command(
        "export-metrics",
        noun,
        help="Give out what a job's trainer has logged, a record a step.",
        example=f"firectl export-metrics {noun} my-job --filename metrics.csv",
        see_also=(f"get {noun}",),
    )
    def export_metrics(
        session: Session,
        id: JobId,
        filename: jobs.MetricsFile = None,
        format: jobs.MetricsFormat = None,
        plot: jobs.PlotFile = None,
    ) -> None:
        from cli.training.job_metrics import export

        export(session, noun, id, filename, format, plot)


for _noun in JOBS:
    for _stop in STOPS:
        _register_stop(_noun, _stop)
    _register_resume(_noun)
    _register_export(_noun)
