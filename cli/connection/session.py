"""What one command works with: who is asking, the client, the output."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cli.errors import ApiError, CliError
from cli.resources import RESOURCES, Resource, short_id
from cli.show.output import Output

if TYPE_CHECKING:  # `version` and help need no server: what speaks to one is imported when it is needed
    from cli.connection.client import ApiClient
    from cli.connection.profile import Connection

_NAME = re.compile(r"accounts/[\w.-]+(?:/\w+/[\w.-]+){1,2}")


UNKNOWN_ACCOUNT = "ACCOUNT"


@dataclass
class Session:
    """One run of firectl. Settings are read when they are first needed: `version` needs none."""

    flags: Mapping[str, str | None]
    output: Output
    profile: str | None = None
    dry_run: bool = False
    debug: bool = False

    @cached_property
    def connection(self) -> "Connection":
        from cli.connection.profile import connection

        found = connection(self.flags, self.profile)
        for warning in found.warnings:
            self.output.warn(f"Warning: {warning}")
        return found

    @cached_property
    def client(self) -> "ApiClient":
        from cli.connection.client import ApiClient
        from cli.connection.signed_in import SignedIn

        trace = sys.stderr if self.debug else None
        tokens = self.connection.tokens
        access = SignedIn(self.profile, tokens, self.connection) if tokens else None
        return ApiClient(self.connection, dry_run=self.dry_run, trace=trace, access=access)

    @cached_property
    def account_id(self) -> str:
        """The account that is meant: named, or the one that the key belongs to.

        A dry run sends nothing, so it does not ask which one that is.
        """
        found = self.connection.account_id
        if not found and self.dry_run:
            self.output.note(f"{UNKNOWN_ACCOUNT} stands for the account of the key; --account-id names one")
            return UNKNOWN_ACCOUNT
        found = found or account_of_key(self.client)
        return RESOURCES["account"].name("", found).removeprefix("accounts/")

    def ask_account(self) -> None:
        """For a dry run that has to ask the server, because the request is made of its answer."""
        if not self.connection.account_id:
            self.account_id = account_of_key(self.client)

    def name(self, noun: str, given: str) -> str:
        """The full name of a resource given by id or name."""
        if given.startswith("accounts/"):
            return RESOURCES[noun].name("", given)
        return RESOURCES[noun].name(self.account_id, given)

    def parent(self, noun: str) -> str:
        """The collection's name in the account."""
        return RESOURCES[noun].parent(self.account_id)

    def get(self, noun: str, given: str) -> dict[str, Any]:
        return self.client.get(self.name(noun, given))


def account_of_key(client: "ApiClient") -> str:
    """Asks the server which account a key belongs to."""
    found = client.key_headers().get("x-fireworks-account-id", "")
    if not found:
        first = (client.look("accounts", {"pageSize": 2}).get("accounts") or [{}])[0]
        found = short_id(str(first.get("name", "")))
    if not found:
        raise CliError(
            "the server does not say which account the key belongs to",
            advice=["name it with --account-id ID or FIREWORKS_ACCOUNT_ID"],
        )
    return found


def add_advice(error: CliError, session: Session | None) -> None:
    """Adds the next command to an error of the API that does not name one yet."""
    if error.advice or session is None or not isinstance(error, ApiError):
        return
    if error.status == 401:
        error.advice += key_advice(session)
    elif error.status == 403:
        error.advice.append("firectl whoami shows which account and key are used")
    elif error.status == 404:
        error.advice += _not_found_advice(error, session)
    elif error.status >= 500:
        error.advice.append("try again; if it lasts, look at the server's log")


def key_advice(session: Session) -> list[str]:
    """How to get in."""
    if session.connection.tokens:
        return [f"firectl signin {session.connection.account_id or 'ACCOUNT'}"]
    if not session.connection.api_key:
        return [
            "firectl set-api-key KEY (or export FIREWORKS_API_KEY=KEY), or firectl signin ACCOUNT",
            "a server started with `hearth up` writes its key to DIR/env: source it",
        ]
    return ["the key is wrong, expired or deleted for this server: firectl set-api-key KEY"]


def _not_found_advice(error: ApiError, session: Session) -> list[str]:
    named = _NAME.search(error.message)
    path = named[0] if named else error.path  # what is missing may be something that the request refers to
    kind = kind_of(path)
    if kind is None:
        return []
    advice = [f"firectl list {kind.plural}"]
    near = _near_names(path, kind, session)
    return [f"did you mean {', '.join(near)}?", *advice] if near else advice


def kind_of(path: str) -> Resource | None:
    """The kind of resource that a path of the API names."""
    parts = path.removeprefix("/v1/").split("/")
    place = tuple(parts[2:-1:2])
    return next((kind for kind in RESOURCES.values() if place and kind.place == place), None)


def _near_names(path: str, kind: Resource, session: Session) -> list[str]:
    """Ids of the same collection that look like the one that was asked for."""
    import difflib

    parent, _, last = path.removeprefix("/v1/").rpartition("/")
    if not parent:
        return []
    try:
        rows = session.client.look(parent, {"pageSize": 200}).get(kind.key) or []
    except CliError:
        return []  # the question was the user's; this one was only to be helpful
    ids = [short_id(str(row.get("name", ""))) for row in rows]
    return difflib.get_close_matches(last.partition(":")[0], ids, n=3)
