"""Who I am, and how firectl gets its key."""

import os
import sys
from typing import Annotated

import typer

from cli import profile
from cli.client import ApiClient, installed_version
from cli.errors import ApiError, CliError, Unreachable
from cli.registry import command
from cli.session import Session, account_of_key


@command("whoami")
def whoami(session: Session) -> None:
    """Show the account and the server that commands go to."""
    account_id = account_of_key(session.client)
    facts = {"accountId": account_id, "baseUrl": session.connection.base_url}
    if session.connection.tokens:
        facts["email"] = session.connection.tokens.email
    if session.account_id != account_id:
        facts["targetAccountId"] = session.account_id
    session.output.resource(facts)


@command("set-api-key")
def set_api_key(
    session: Session,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="The key; by default it is asked for."),
    ] = None,
) -> None:
    """Keep an API key in ~/.fireworks/auth.ini for all later commands."""
    key = (key or _ask_key()).strip()
    if not key:
        raise CliError("no key was given", advice=["firectl set-api-key KEY"])
    wanted = {"api_key": key, **_server_named(session)}
    account_id = session.flags.get("account_id") or _verified_account(session, key)
    if account_id:
        wanted["account_id"] = account_id
    path = profile.save(session.profile, wanted, without=profile.TOKEN_KEYS)
    session.output.note(f"Saved to {path}" + (f" for account {account_id}" if account_id else ""))


@command("version")
def version(session: Session) -> None:
    """Show the version of firectl."""
    if session.output.as_json:
        session.output.json({"version": installed_version()})
    else:
        session.output.line(f"firectl {installed_version()} (Hearth)")


@command("upgrade")
def upgrade(session: Session) -> None:
    """Say how to upgrade."""
    session.output.line("firectl comes with Hearth: pip install --upgrade hearth")


def _ask_key() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("API key", hide_input=True, err=True))
    return sys.stdin.readline()


def _server_named(session: Session) -> dict[str, str]:
    """The server's address, when the user named one: the key belongs to that server."""
    named = session.flags.get("base_url") or os.environ.get("FIREWORKS_BASE_URL")
    return {"base_url": named} if named else {}


def _verified_account(session: Session, key: str) -> str:
    """The key's account as the server names it; "" when no server answers. A refused key is an error."""
    known = session.profile if profile.exists(session.profile) else None
    base_url = profile.connection(session.flags, known).base_url
    client = ApiClient(profile.Connection(key, "", base_url))
    try:
        return account_of_key(client)
    except Unreachable as error:
        session.output.note(f"The key was not checked: {error.message}")
        return ""
    except ApiError as error:
        if error.status in (401, 403):
            raise CliError(f"{base_url} refuses this key: {error.message}; nothing was saved") from None
        session.output.note(f"The key was not checked: {error.message}")
        return ""
