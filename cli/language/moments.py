"""Points in time as people type them: a date, a time, RFC 3339, or a length of time from now."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.errors import UsageError
from cli.language.options import seconds

EXAMPLES = '2030-01-31, "2030-01-31 18:00:00", 2030-01-31T18:00:00Z or 24h'
Start = Annotated[
    str | None,
    typer.Option(
        "--start-time",
        metavar="TIME",
        help=f"From this moment on: {EXAMPLES} ago, in UTC.",
        show_default=False,
    ),
]
End = Annotated[
    str | None,
    typer.Option("--end-time", metavar="TIME", help="Up to this moment; now by default.", show_default=False),
]


def later(text: str, flag: str) -> datetime:
    """A moment; of a length of time such as `720h`, the moment so far ahead. Without a zone it is in UTC."""
    return _moment(text, flag, ahead=1)


def earlier(text: str, flag: str) -> datetime:
    """A moment; of a length of time such as `24h`, the moment so long ago. Without a zone it is in UTC."""
    return _moment(text, flag, ahead=-1)


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC: `2030-01-31T18:00:00Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def now() -> datetime:
    """This second."""
    return datetime.now(UTC).replace(microsecond=0)


def midnight(stamp: str = "") -> datetime:
    """When the day of an RFC 3339 time began, in UTC; without one, today."""
    moment = datetime.fromisoformat(stamp).astimezone(UTC) if stamp else now()
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _moment(text: str, flag: str, *, ahead: int) -> datetime:
    try:
        return now() + ahead * timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        pass  # no length of time: then it is a date or a time
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f'invalid value for {flag}: "{text}" is not a time such as {EXAMPLES}') from None
