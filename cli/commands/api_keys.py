"""API keys: of the user whose key is used, or of a user that is named."""

from typing import Annotated

import typer

from cli.options import Fields, Flag
from cli.registry import command
from cli.session import Session

_OF_USER = typer.Option("--of-user", help="The user whose key it is; yours by default.", show_default=False)
_CREATE = (
    Flag("key-name", "displayName", "A name for the key.", also=("--display-name",)),
    Flag("expire-time", "expireTime", "When it stops working, such as 2030-01-01T00:00:00Z."),
)


@command("create", "api-key", flags=_CREATE)
def create_api_key(session: Session, fields: Fields, of_user: Annotated[str | None, _OF_USER] = None) -> None:
    """Create an API key. The key itself is shown once, now."""
    body = {"apiKey": {"displayName": "default", **fields.body}}
    created = session.client.call("POST", _keys(session, of_user), body=body)
    session.output.resource(created)
    session.output.note("The key is shown only this once; to use it: firectl set-api-key KEY")


@command("delete", "api-key")
def delete_api_key(
    session: Session,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, from list api-keys.")],
    of_user: Annotated[str | None, _OF_USER] = None,
) -> None:
    """Delete an API key; it stops working."""
    session.client.call("POST", f"{_keys(session, of_user)}:delete", body={"keyId": key_id})
    session.output.note(f"Deleted key {key_id}")
    if session.output.as_json:
        session.output.json({})


def _keys(session: Session, user: str | None) -> str:
    return f"{session.name('user', user)}/apiKeys" if user else session.parent("api-key")
