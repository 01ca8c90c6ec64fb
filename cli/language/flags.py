"""Flags that several commands have, flags in groups, and those that nothing here could honour."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from cli.errors import CliError
from cli.language.options import Fields, Flag, Kind, seconds

REFUSED = "Refused"
_PLACE = "refused"
_WAITING = "Waiting"


def checked_duration(text: str) -> str:
    """Checked before anything is sent: a wait that cannot be begun must not leave a deployment behind."""
    try:
        seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


Wait = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        "-w",
        help="Wait until it is done.",
        show_default=False,
        rich_help_panel=_WAITING,
    ),
]
WaitTimeout = Annotated[
    str,
    typer.Option(
        "--wait-timeout",
        help="How long to wait at most.",
        metavar="DURATION",
        callback=checked_duration,
        rich_help_panel=_WAITING,
    ),
]


@dataclass(frozen=True)
class RefusedFlag(Flag):
    """A flag that is taken from the command line only to be refused."""

    reason: str = ""


def group(name: str, *flags: Flag) -> tuple[Flag, ...]:
    """The flags, under a heading of their own in the help."""
    return tuple(replace(flag, group=name) for flag in flags)


def refused(name: str, reason: str, kind: Kind = Kind.TEXT, *, also: tuple[str, ...] = ()) -> RefusedFlag:
    """A flag with no field to go to. Given as false or 0, it asks for nothing and is let pass."""
    text = f"{reason[:1].upper()}{reason[1:]}."
    return RefusedFlag(name, f"{_PLACE}.{name}", text, kind, also, group=REFUSED, reason=reason)


def refuse(fields: Fields, flags: Iterable[Flag]) -> None:
    """Raises for the first refused flag that was given; leaves nothing of them in the request."""
    given = fields.body.pop(_PLACE, {})
    fields.paths = [path for path in fields.paths if not path.startswith(f"{_PLACE}.")]
    for flag in flags:
        if isinstance(flag, RefusedFlag) and given.get(flag.name) not in (None, False, 0, "", "0s"):
            raise CliError(f"--{flag.name} is not supported: {flag.reason}")
