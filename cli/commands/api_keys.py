"""API keys: of the user whose key is used, or of a user that is named."""

import json
from typing import Annotated

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import ApiError, CliError
from cli.language import moments
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.resources import RESOURCES

_KIND = RESOURCES["api-key"]
_OF_USER = typer.Option(
    "--service-account",
    "--of-user",
    metavar="ID",
    help="The service account or user whose key it is; yours by default. Only admins may name another.",
    show_default=False,
)
_EXPIRE_TIME = typer.Option(
    "--expire-time",
    metavar="TIME",
    help=f"When it stops working: {moments.EXAMPLES} from now. Never, by default.",
    show_default=False,
)
_LISTED = "firectl list api-keys --all-users"
_KEY_ID = typer.Argument(metavar="KEY_ID", help="The key's id, from list api-keys.")
_KEY_NAME = Flag(
    "key-name",
    "displayName",
    'A name for the key; "default" unless given.',
    also=("--name", "--display-name"),
)

_LIMITS = (
    Flag("requests-per-minute", "requestsPerMinute", "Inference requests that it may make.", Kind.INTEGER),
    Flag("tokens-per-minute", "tokensPerMinute", "Tokens of their prompts and answers.", Kind.INTEGER),
    Flag("concurrent-requests", "concurrentRequests", "Of them at one time, at each gateway.", Kind.INTEGER),
)


@command(
    "create",
    "api-key",
    flags=(_KEY_NAME, *_LIMITS),
    example="firectl create api-key --key-name laptop --expire-time 720h",
    see_also=("set-api-key", "list api-keys", "delete api-key"),
)
def create_api_key(
    session: Session,
    fields: Fields,
    of_user: Annotated[str | None, _OF_USER] = None,
    expire_time: Annotated[str | None, _EXPIRE_TIME] = None,
) -> None:
    """Create an API key. The key itself is shown once, now."""
    wanted = {"displayName": "default", **fields.body}
    if expire_time:
        wanted["expireTime"] = moments.stamp(moments.later(expire_time, "--expire-time"))
    created = session.client.call("POST", _keys(session, of_user), body={"apiKey": wanted})
    session.output.resource(created)
    session.output.note("The key is shown only this once; to use it: firectl set-api-key KEY")


@command(
    "list",
    "api-key",
    flags=standard.LIST_FLAGS,
    example="firectl list api-keys --all-users",
    see_also=("create api-key", "delete api-key", "whoami"),
)
def list_api_keys(
    session: Session,
    fields: Fields,
    all_users: Annotated[
        bool, typer.Option("--all-users/--no-all-users", help="Those of everybody; only admins see them.")
    ] = False,
    of_user: Annotated[str | None, _OF_USER] = None,
    no_paginate: standard.NoPaginate = False,
) -> None:
    """List your API keys, or a service account's, or everybody's; never the keys themselves."""
    parent = session.parent("api-key") if all_users else _keys(session, of_user or _own_id(session))
    standard.show_list(session, _KIND, parent, fields, no_paginate)


@command(
    "get",
    "api-key",
    example="firectl get api-key 1a2b3c4d5e6f",
    see_also=("list api-keys", "delete api-key"),
)
def get_api_key(session: Session, key_id: Annotated[str, _KEY_ID]) -> None:
    """Show what is known of an API key; never the key itself."""
    wanted = f"key_id = {json.dumps(_id_of(session, key_id))}"
    found = session.client.get(session.parent("api-key"), {"filter": wanted}).get(_KIND.key) or []
    if not found:
        raise CliError(f'there is no API key "{key_id}"', advice=[_LISTED])
    session.output.resource(found[0])


@command(
    "delete",
    "api-key",
    example="firectl delete api-key 1a2b3c4d5e6f",
    see_also=("list api-keys", "create api-key"),
)
def delete_api_key(
    session: Session,
    key_id: Annotated[str, _KEY_ID],
    of_user: Annotated[str | None, _OF_USER] = None,
) -> None:
    """Delete an API key; it stops working within seconds."""
    id = _id_of(session, key_id)
    try:
        session.client.call("POST", f"{_keys(session, of_user)}:delete", body={"keyId": id})
    except ApiError as error:
        if error.status == 404 and "/users/" not in error.message:
            error.advice.append(_LISTED)
        raise
    session.output.note(f"Deleted key {id}")
    if session.output.as_json:
        session.output.json({})


def _keys(session: Session, user: str | None) -> str:
    return f"{session.name('user', user)}/apiKeys" if user else session.parent("api-key")


def _own_id(session: Session) -> str | None:
    """The user whose key is used; None where the server does not say."""
    return session.client.key_headers().get("x-fireworks-user-id")


def _id_of(session: Session, given: str) -> str:
    """The key's id: as given, or the last part of a name with or without the user."""
    if "/users/" in given:
        user, _, id = given.partition("/apiKeys/")
        session.name("user", user)
        given = id
    return session.name("api-key", given).rpartition("/")[2]
