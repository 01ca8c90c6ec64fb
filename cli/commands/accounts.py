"""Accounts."""

from typing import Annotated

import typer

from cli.registry import command
from cli.session import Session


@command("get", "account")
def get_account(
    session: Session,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The account; yours by default.")] = None,
) -> None:
    """Show an account."""
    session.output.resource(session.get("account", id or session.account_id))
