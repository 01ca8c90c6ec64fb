"""Waiting for a resource to reach a state, with what it is doing in view."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cli.connection.client import is_outage
from cli.connection.session import Session
from cli.errors import ApiError, CliError, Interrupted, UsageError
from cli.language.options import seconds
from cli.show.output import Output
from cli.show.progress import StatusLine, status_line
from cli.show.readable import span

FIRST_POLL_SECONDS = 0.25
SLOWEST_POLL_SECONDS = 2.0
# A server that restarts, or a network that blinks, does not end a wait.
OUTAGE_SECONDS = 120.0


@dataclass(frozen=True)
class Verdict:
    """What one look at a resource says: the line to show, and whether the wait is over, well or badly."""

    line: str
    done: bool = False
    failure: str = ""


Judge = Callable[[Mapping[str, Any] | None], Verdict]  # None: the resource is not there
Screen = Callable[[Output], AbstractContextManager[StatusLine]]


def wait_for(
    session: Session,
    name: str,
    judge: Judge,
    *,
    timeout: str | float,
    lives_on: list[str],
    screen: Screen = status_line,
) -> dict[str, Any]:
    """Looks until the judge says that it is over; returns the last state seen.

    `lives_on` tells how to watch and delete the resource when the wait ends before it does; `screen` shows
    what is going on.
    """
    limit = _limit(timeout)
    try:
        with screen(session.output) as show:
            resource, verdict = _watch(session, name, judge, limit, show)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped waiting; {name} lives on", advice=lives_on) from None
    if verdict.failure:
        raise WaitFailed(verdict.failure, resource)
    if not verdict.done:
        raise StillGoing(f"{name} was not ready after {span(limit)}: {verdict.line}", advice=lives_on)
    return resource


class StillGoing(CliError):
    """The wait is over, and what was waited for goes on."""

    exit_code = 4


class WaitFailed(CliError):
    """What was waited for failed; carries its last state."""

    exit_code = 3

    def __init__(self, message: str, resource: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.resource = resource


def _watch(
    session: Session, name: str, judge: Judge, limit: float, show: StatusLine
) -> tuple[dict[str, Any], Verdict]:
    deadline = time.monotonic() + limit
    pause, answered_at = FIRST_POLL_SECONDS, time.monotonic()
    resource: dict[str, Any] = {}
    verdict = Verdict("")
    while True:
        try:
            found = _look(session, name)
        except CliError as error:
            if not is_outage(error) or time.monotonic() - answered_at > OUTAGE_SECONDS:
                raise
            show(f"no answer from the server, trying on: {error.message}")
        else:
            answered_at = time.monotonic()
            verdict, resource = judge(found), found or resource
            show(verdict.line)
            if verdict.done or verdict.failure:
                return resource, verdict
        left = deadline - time.monotonic()
        if left <= 0:
            return resource, verdict
        time.sleep(min(pause, left))
        pause = min(pause * 1.3, SLOWEST_POLL_SECONDS)


def _look(session: Session, name: str) -> dict[str, Any] | None:
    try:
        return session.client.get(name)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _limit(timeout: str | float) -> float:
    if not isinstance(timeout, str):
        return timeout
    try:
        return seconds(timeout)
    except ValueError as error:
        raise UsageError(f"invalid value for --wait-timeout: {error}") from None


def state_of(resource: Mapping[str, Any]) -> str:
    return str(resource.get("state") or "").removeprefix("JOB_STATE_")


def status_of(resource: Mapping[str, Any]) -> tuple[str, str]:
    """(code, message) of a resource's status; the code of a healthy one is OK."""
    status = resource.get("status") or {}
    return str(status.get("code") or "OK"), str(status.get("message") or "")


def state_line(resource: Mapping[str, Any], *more: str) -> str:
    """`STATE  more  reason`."""
    return "  ".join(part for part in (state_of(resource), *more, status_of(resource)[1]) if part)
