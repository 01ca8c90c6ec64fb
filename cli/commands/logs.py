"""`firectl logs`: what a fine-tuning job's trainer printed."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.connection.client import is_outage
from cli.connection.session import Session
from cli.errors import CliError, Interrupted, UsageError, printable
from cli.language.registry import command, spellings
from cli.resources import JOBS, RESOURCES
from cli.training.finding import kind_of

FOLLOW_SECONDS = 1.0
OUTAGE_SECONDS = 120.0
_MOST_LINES = 10_000

_Follow = Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on until the job has ended.")]
_Tail = Annotated[
    int | None,
    typer.Option("--tail", min=0, max=_MOST_LINES, help="Only the last so many lines.", metavar="N"),
]
_Job = Annotated[str, typer.Argument(metavar="ID", help="The job's id or name.")]


@command(
    "logs",
    example="firectl logs my-job --tail 20",
    see_also=("get fine-tuning-job", "get supervised-fine-tuning-job", "list fine-tuning-jobs"),
)
def logs(
    session: Session,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="ID", help="The job's id or name; its kind may stand before it, as in sftj my-job."
        ),
    ],
    follow: _Follow = False,
    tail: _Tail = None,
) -> None:
    """Print what a fine-tuning job's trainer printed: while it runs, and after."""
    kind, given = _meant(words)
    noun = kind or kind_of(session, given)
    if noun not in JOBS:
        _refuse(noun)
    show_logs(session, session.name(noun, given), follow, tail)


def _register(noun: str) -> None:
    @command(
        "logs",
        noun,
        help="Print what the job's trainer printed: while it runs, and after.",
        example=f"firectl {noun} logs my-job --follow",
        see_also=(f"get {noun}", f"list {noun}s", f"delete {noun}"),
    )
    def job_logs(session: Session, id: _Job, follow: _Follow = False, tail: _Tail = None) -> None:
        show_logs(session, session.name(noun, id), follow, tail)


for _job_noun in JOBS:
    _register(_job_noun)


@command(
    "logs",
    "deployment",
    help="Refused: the log of a deployment's engines is not kept.",
    example="firectl deployment logs my-deployment",
    see_also=("get deployment", "logs fine-tuning-job"),
)
def deployment_logs(
    session: Session, id: Annotated[str, typer.Argument(metavar="ID", help="The deployment's id or name.")]
) -> None:
    _refuse("deployment")


@dataclass(frozen=True)
class Page:
    """A part of a log; `complete` when the job has ended and nothing comes after it."""

    text: str
    next_offset: str
    complete: bool


def show_logs(session: Session, name: str, follow: bool, tail: int | None) -> None:
    """Prints the log; as JSON it is one list of lines, so it cannot be followed."""
    if session.output.as_json and follow:
        raise UsageError("--follow prints lines as they come, and --output json one document at the end")
    pages = _pages(session, name, follow, tail)
    try:
        if session.output.as_json:
            session.output.json("".join(page.text for page in pages).splitlines())
            return
        printed = _print(session, pages)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped following; {name} lives on", advice=[f"firectl logs {name} --follow"]
        ) from None
    if not printed and tail != 0:
        session.output.note(f"{name} has printed nothing yet")


def _print(session: Session, pages: Iterator[Page]) -> bool:
    """Whole lines at a time; whether there were any."""
    rest, any_text = "", False
    for page in pages:
        *lines, rest = (rest + page.text).split("\n")
        for line in lines:
            session.output.line(line.expandtabs())
        session.output.stdout.flush()
        any_text = any_text or bool(page.text)
    if rest:
        session.output.line(rest.expandtabs())
    return any_text


def _pages(session: Session, name: str, follow: bool, tail: int | None) -> Iterator[Page]:
    """The log page by page; following it, until the job has ended."""
    query: dict[str, Any] = {} if tail is None else {"tailLines": tail}
    answered_at = time.monotonic()
    while True:
        try:
            page = _page(session.client.get(f"{name}:logs", query))
        except CliError as error:
            if not follow or not is_outage(error) or time.monotonic() - answered_at > OUTAGE_SECONDS:
                raise
        else:
            answered_at = time.monotonic()
            yield page
            if page.complete or (not follow and (tail is not None or not page.text)):
                return
            query = {"offset": page.next_offset}
            if page.text:
                continue
        time.sleep(FOLLOW_SECONDS)


def _page(answer: Mapping[str, Any]) -> Page:
    return Page(
        str(answer.get("text") or ""), str(answer.get("nextOffset") or "0"), bool(answer.get("complete"))
    )


def _meant(words: list[str]) -> tuple[str, str]:
    """(the kind, or nothing; the id or name) of `ID`, `KIND ID` or a full name."""
    if len(words) > 2:
        raise UsageError(f'one job at a time: what is "{words[2]}"?', advice=["firectl logs --help"])
    if len(words) == 2:
        return _noun(words[0]), words[1]
    parts = words[0].split("/")
    collections = {
        **{RESOURCES[noun].collection: noun for noun in JOBS},
        "deployments": "deployment",
    }
    return collections.get(parts[2], "") if len(parts) == 4 else "", words[0]


def _noun(word: str) -> str:
    found = next((noun for noun in (*JOBS, "deployment") if word in spellings(noun)), None)
    if found is None:
        raise UsageError(
            f'"{printable(word)}" keeps no log', advice=[f"firectl logs {noun} ID" for noun in JOBS]
        )
    return found


def _refuse(noun: str) -> None:
    raise CliError(
        f"logs of a {noun} are not kept: only the trainers of fine-tuning jobs leave one",
        advice=["firectl get deployment ID says why its last replica failed"],
    )
