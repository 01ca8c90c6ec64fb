"""`get … --watch`: a resource until it is in an end state, and the loss curve of what is being trained."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cli.connection.session import Session
from cli.errors import CliError, printable
from cli.show.output import Output
from cli.show.progress import StatusLine, flowed, plain_lines
from cli.show.readable import span, state_colour
from cli.show.terminal import coloured, shortened, speaks_unicode, wants_colour
from cli.show.waiting import Judge, Verdict, WaitFailed, wait_for

WATCHED = (
    "model",
    "dataset",
    "deployment",
    "fine-tuning-job",
    "supervised-fine-tuning-job",
    "dpo-job",
)
"""The nouns of what comes to an end state by itself."""

METRICS_SECONDS = 2.0
"""The least time between two looks at a job's metrics. A look that takes long is followed by a longer one."""
_CHART_HEIGHT = 16
_LEAST_CHART = 6
_HEAD_LINES = 3

Metrics = Callable[[], Sequence[Mapping[str, Any]]]


def watch(session: Session, noun: str, given: str) -> None:
    """Shows what it is doing until it ends; then prints it. Raises WaitFailed when it ended badly."""
    name = session.name(noun, given)
    session.client.get(name)  # one that is not there is told as such
    scene = Scene(f"{noun} {given}", _metrics_of(session, noun, name))
    try:
        found = wait_for(
            session,
            name,
            scene.judging(_judge_of(noun)),
            timeout=float("inf"),
            lives_on=[f"firectl get {noun} {given} --watch"],
            screen=scene.on,
        )
    except WaitFailed as failure:
        if failure.resource:
            session.output.resource(failure.resource)
        raise
    session.output.resource(found)


class Scene:
    """What is watched, as it was last seen."""

    def __init__(self, title: str, metrics: Metrics | None = None) -> None:
        self.title = printable(title)
        self._metrics = metrics
        self._line = ""
        self._records: Sequence[Mapping[str, Any]] = ()
        self._next_look = 0.0
        self._drawing = False

    def judging(self, judge: Judge) -> Judge:
        """The same judge; what it sees is looked at more closely on the way."""

        def look(found: Mapping[str, Any] | None) -> Verdict:
            self._look_at_metrics()
            return judge(found)

        return look

    @contextmanager
    def on(self, output: Output) -> Iterator[StatusLine]:
        """Draws it on a terminal; elsewhere there are plain lines, and no chart."""
        if not output.live:
            with plain_lines(output) as show:
                yield show
            return
        from cli.show.live import Region

        started = time.monotonic()
        self._drawing = True

        def draw(columns: int, lines: int) -> list[str]:
            return self.drawn(columns, lines, time.monotonic() - started, output)

        with Region(output, draw):
            yield self._say

    def drawn(self, columns: int, lines: int, gone: float, output: Output) -> list[str]:
        """The head, and under it the curve where there is one and room for it."""
        state, *words = self._line.split("  ")
        clock = span(gone)
        room = columns - len(state) - len(clock) - 4
        title = f"{shortened(self.title, room)}  " if room > 3 else ""
        shown = coloured(state, state_colour(state)) if wants_colour(output.stderr) else state
        below = lines - 1
        # Where there is little room the curve says more than the words.
        spare = below - _LEAST_CHART if self._records else below
        words = flowed(words, columns, max(0, min(_HEAD_LINES, spare)), indent="")
        chart = self._chart(columns, min(_CHART_HEIGHT, below - len(words)), output)
        return [f"{title}{shown}  {clock}", *words, *chart]

    def _say(self, text: str) -> None:
        self._line = printable(text)

    def _look_at_metrics(self) -> None:
        if self._metrics is None or not self._drawing or time.monotonic() < self._next_look:
            return
        started = time.monotonic()
        try:
            self._records = self._metrics()
        except CliError:
            pass  # the next look may do better; what is drawn is not wrong, only older
        took = time.monotonic() - started
        self._next_look = time.monotonic() + max(METRICS_SECONDS, 10 * took)

    def _chart(self, columns: int, lines: int, output: Output) -> list[str]:
        if not self._records:
            return []
        from cli.show.plot import ASCII, UNICODE, curve

        ink = UNICODE if speaks_unicode(output.stderr) else ASCII
        losses, evaluations = _points(self._records, "loss"), _points(self._records, "eval_loss")
        drawn = curve(losses, evaluations, columns, lines - 1, ink)
        return [*drawn, _legend(losses, evaluations, ink.mark, columns)] if drawn else []


def _legend(
    losses: Sequence[tuple[float, float]], evaluations: Sequence[tuple[float, float]], mark: str, columns: int
) -> str:
    parts = [f"loss {losses[-1][1]:.4g}"] if losses else []
    parts += [f"{mark} evaluation {evaluations[-1][1]:.4g}"] if evaluations else []
    return shortened("  ".join([*parts, "by step"]), columns)


def _points(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of every record that has both."""
    found = []
    for record in records:
        try:
            found.append((float(record["step"]), float(record[key])))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _metrics_of(session: Session, noun: str, name: str) -> Metrics | None:
    if not noun.endswith("fine-tuning-job"):
        return None
    from cli.training.job_metrics import job_metrics

    return lambda: job_metrics(session, noun, name)


def _judge_of(noun: str) -> Judge:
    if noun == "deployment":
        from cli.commands.deployments import judge_deployment

        return judge_deployment
    if noun in ("model", "dataset"):
        from cli.transfer.uploading import judge_upload

        return judge_upload
    from cli.training.jobs import judge_job

    return judge_job
