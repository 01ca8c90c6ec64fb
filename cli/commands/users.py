"""Users of an account."""

import json
from typing import Annotated

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import ApiError, UsageError
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command

_ROLES = ("admin", "user", "contributor", "inference-user")
_DISPLAY_NAME = Flag("display-name", "displayName", "A name for people.")
# The server refuses it, with the reason.
_PRESET = Flag("permission-preset", "permissionPreset", "Not available: roles have fixed permissions.")
_CREATE = (
    Flag("email", "email", "The email address that the person signs in with."),
    Flag("role", "role", "What the user may do; user by default.", choices=_ROLES),
    _DISPLAY_NAME,
    Flag("service-account", "serviceAccount", "A user for programs, not for a person.", Kind.SWITCH),
    Flag("user-id", "?userId", "The id; by default it comes from the email address."),
    _PRESET,
)
_ROLE = Flag("role", "role", "What the user may do.", also=("--user",), choices=_ROLES)
_UPDATE = (_ROLE, _DISPLAY_NAME, _PRESET)


@command(
    "create",
    "user",
    flags=_CREATE,
    example="firectl create user --email alice@example.com --role contributor",
    see_also=("list users", "update user", "create api-key"),
)
def create_user(session: Session, fields: Fields) -> None:
    """Add a person or a service account to the account. Only admins may."""
    if not fields.body.get("email") and not fields.body.get("serviceAccount"):
        raise UsageError(
            "which email address? A service account needs none",
            advice=[
                "firectl create user --email EMAIL",
                "firectl create user --service-account --user-id ID",
            ],
        )
    body = {"role": "user", **fields.body}
    try:
        made = session.client.call("POST", session.parent("user"), query=fields.query, body=body)
    except ApiError as error:
        if error.status == 409 and body.get("email"):
            error.advice.append(f"firectl list users --filter 'email = {json.dumps(body['email'])}'")
        raise
    session.output.resource(made)


@command(
    "update",
    "user",
    flags=_UPDATE,
    example="firectl update user alice --role admin",
    see_also=("get user", "list users"),
)
def update_user(
    session: Session, id: Annotated[str, typer.Argument(metavar="ID", help="Its id or name.")], fields: Fields
) -> None:
    """Change a user's role or name. Only admins may."""
    standard.update(session, "user", id, fields)
