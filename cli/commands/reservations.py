"""Reserved GPUs. Whoever runs the server makes reservations; here they are shown."""

from typing import Annotated

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.language.options import Fields
from cli.language.registry import command
from cli.resources import RESOURCES

_NOT_OVER = 'state != "EXPIRED"'


@command(
    "list",
    "reservation",
    flags=standard.LIST_FLAGS,
    example="firectl list reservations --show-inactive",
    see_also=("get reservation", "list quotas"),
)
def list_reservations(
    session: Session,
    fields: Fields,
    show_inactive: Annotated[
        bool, typer.Option("--show-inactive/--no-show-inactive", help="Those that are over, too.")
    ] = False,
    no_paginate: standard.NoPaginate = False,
) -> None:
    """List the account's reserved GPUs: those of now, and those still to come."""
    kind, always = RESOURCES["reservation"], "" if show_inactive else _NOT_OVER
    shown = standard.show_list(session, kind, session.parent(kind.noun), fields, no_paginate, always=always)
    if not shown and always and not session.output.as_json:
        session.output.note("Those that are over: firectl list reservations --show-inactive")
