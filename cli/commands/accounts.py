"""Accounts."""

from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CliError
from cli.language.options import Fields, Flag
from cli.language.registry import command
from cli.show.money import dollars

_ID = typer.Argument(metavar="[ID]", help="The account; yours by default.")
_CHANGES = (
    Flag("display-name", "displayName", "A name for people."),
    Flag("email", "email", "The address of who pays."),
)


@command(
    "get",
    "account",
    example="firectl get account",
    see_also=("whoami", "list quotas", "summary billing"),
)
def get_account(session: Session, id: Annotated[str | None, _ID] = None) -> None:
    """Show an account: yours, unless another one is named."""
    account = session.get("account", id or session.account_id)
    session.output.resource(account if session.output.as_json else _with_balance(account))


@command(
    "update",
    "account",
    flags=_CHANGES,
    example="firectl update account --help",
    see_also=("get account", "update quota"),
)
def update_account(session: Session, fields: Fields, id: Annotated[str | None, _ID] = None) -> None:
    """Not available here: accounts belong to whoever runs the server."""
    raise CliError(
        "an account cannot be changed through the API: that is up to whoever runs the server",
        advice=["firectl update quota ID --value N lowers what the account may use"],
    )


def _with_balance(account: dict[str, Any]) -> dict[str, Any]:
    """The account as people read it: a balance, where the server tells one, as `USD 12.50`."""
    balance = account.get("balance")
    return {**account, "balance": dollars(balance)} if isinstance(balance, dict) else account
