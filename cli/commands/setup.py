"""Who I am, and how firectl gets its key."""

import os
import sys
from typing import Annotated

import typer

from cli.connection import profile
from cli.connection.client import ApiClient, installed_version
from cli.connection.session import Session, account_of_key, key_advice
from cli.errors import ApiError, CliError, DryRun, Unreachable, UsageError
from cli.language.registry import command

_SHOWN = 8  # characters of a key that are no secret


_FROM_SERVER = "asked from the server"


@command(
    "whoami",
    example="firectl whoami",
    see_also=("set-api-key", "signin", "list users"),
)
def whoami(session: Session) -> None:
    """Show the server, the account, the user and the key that commands go with, and where each came from."""
    connection = session.connection
    if session.dry_run:
        raise DryRun({"method": "GET", "url": f"{connection.base_url}/verifyApiKey"})
    if not (connection.api_key or connection.tokens):
        raise CliError("there is no API key, and nobody is signed in", advice=key_advice(session))
    told = session.client.key_headers()
    account_id = told.get("x-fireworks-account-id") or account_of_key(session.client)
    session.output.resource(
        {
            **_account(session, account_id),
            "userId": told.get("x-fireworks-user-id", ""),
            "role": told.get("x-fireworks-role", ""),
            **_credential(session, told.get("x-fireworks-api-key-id", "")),
            "baseUrl": connection.base_url,
            "baseUrlSource": connection.sources["base_url"] or "default",
        }
    )


@command(
    "set-api-key",
    example="firectl set-api-key fw_YourKey",
    see_also=("whoami", "signin", "create api-key"),
)
def set_api_key(
    session: Session,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="The key; by default it is asked for, or read from a pipe."),
    ] = None,
) -> None:
    """Keep an API key in ~/.fireworks/auth.ini for all later commands, once the server has taken it."""
    key = (key or _ask_key()).strip()
    if not key:
        raise UsageError("no key was given", advice=["firectl set-api-key KEY"])
    if session.dry_run:
        raise DryRun({"method": "GET", "url": f"{_server(session)}/verifyApiKey", "then": "keep the key"})
    wanted = {"api_key": key, **_server_named(session)}
    account_id = session.flags.get("account_id") or _verified_account(session, key)
    if account_id:
        wanted["account_id"] = account_id
    path = profile.save(session.profile, wanted, without=profile.TOKEN_KEYS)
    session.output.note(f"Saved to {path}" + (f" for account {account_id}" if account_id else ""))
    if os.environ.get("FIREWORKS_API_KEY") not in (None, "", key) and not session.profile:
        session.output.warn("FIREWORKS_API_KEY is set and wins over the file: unset FIREWORKS_API_KEY")
    if session.output.as_json:
        session.output.json({})


@command("version", example="firectl version", see_also=("upgrade", "whoami"))
def version(
    session: Session,
    client: Annotated[bool, typer.Option("--client", help="Only that of firectl; ask no server.")] = False,
) -> None:
    """Show the versions of firectl and, when one is configured and answers, of the server."""
    own = installed_version()
    address = "" if client or session.dry_run else _configured_server(session)
    server = _asked(address)
    if session.output.as_json:
        both = {"version": own, "server_version": server, "server": address}
        session.output.json(both if server else {"version": own})
        return
    session.output.line(f"firectl {own} (Hearth)")
    if server:
        session.output.line(f"server {server} ({address})")


@command("upgrade", example="firectl upgrade", see_also=("version",))
def upgrade(session: Session) -> None:
    """Say how to upgrade."""
    how = "pip install --upgrade hearth"
    if session.output.as_json:
        session.output.json({"version": installed_version(), "command": how})
        return
    session.output.line(f"firectl {installed_version()} comes with Hearth: {how}")


def _account(session: Session, account_id: str) -> dict[str, str]:
    """The key's account, and the one that commands go to where that is another."""
    named = session.connection.account_id
    source = session.connection.sources["account_id"]
    if named in ("", account_id):
        return {"accountId": account_id, "accountIdSource": source or _FROM_SERVER}
    target = {"targetAccountId": named, "targetAccountIdSource": source}
    return {"accountId": account_id, "accountIdSource": _FROM_SERVER, **target}


def _credential(session: Session, key_id: str) -> dict[str, str]:
    """What the server knows us by; of the key itself, as much as lists of keys show."""
    tokens = session.connection.tokens
    if tokens is not None:
        return {"email": tokens.email, "apiKeySource": f"signin, {session.connection.sources['tokens']}"}
    key = session.connection.api_key
    shown = key[: min(_SHOWN, len(key) // 3)]
    source = session.connection.sources["api_key"]
    return {"apiKeyId": key_id, "apiKeyPrefix": shown, "apiKeySource": source}


def _asked(address: str) -> str:
    if not address:
        return ""
    from cli.connection.server_version import server_version

    return server_version(address)


def _configured_server(session: Session) -> str:
    """The server that somebody has named; "" when only the default is left, or the files cannot be read."""
    try:
        connection = session.connection
    except CliError:
        return ""
    return connection.base_url if connection.sources["base_url"] else ""


def _server(session: Session) -> str:
    """The address that a new key would be for; a profile that is named may be a new one."""
    known = session.profile if profile.exists(session.profile) else None
    return profile.connection(session.flags, known).base_url


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
    base_url = _server(session)
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
