"""Users of an account."""

from typing import Annotated

import typer

from cli.commands import standard
from cli.options import Fields, Flag, Kind
from cli.registry import command
from cli.session import Session

_ROLE = Flag("role", "role", "admin or user.", also=("--user",))
_DISPLAY_NAME = Flag("display-name", "displayName", "A name for people.")
_CREATE = (
    Flag("email", "email", "The email address."),
    _ROLE,
    _DISPLAY_NAME,
    Flag("service-account", "serviceAccount", "A user for programs, not for a person.", Kind.SWITCH),
    Flag("user-id", "?userId", "The id; by default it comes from the email address."),
)


@command("create", "user", flags=_CREATE)
def create_user(session: Session, fields: Fields) -> None:
    """Add a user to the account."""
    body = {"role": "user", **fields.body}
    session.output.resource(
        session.client.call("POST", session.parent("user"), query=fields.query, body=body)
    )


@command("update", "user", flags=(_ROLE, _DISPLAY_NAME))
def update_user(
    session: Session, id: Annotated[str, typer.Argument(metavar="ID", help="Its id or name.")], fields: Fields
) -> None:
    """Change a user's role or name."""
    standard.update(session, "user", id, fields)
