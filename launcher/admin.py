"""`hearth admin`: accounts, users and keys, made straight in the database by whoever runs the platform."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

admin = typer.Typer(help="Make accounts, users and keys, straight in the database.", no_args_is_help=True)

AccountOption = Annotated[str, typer.Option("--account", help="Id of the account.")]
UserOption = Annotated[str, typer.Option("--user", help="Id of the user.")]
EmailOption = Annotated[str, typer.Option("--email", help="Where the person can be reached.")]
RoleOption = Annotated[str, typer.Option("--role", help="admin or user.")]
ROLES = ("admin", "user")

Result = TypeVar("Result")


@admin.command("bootstrap")
def bootstrap_command() -> None:
    """Make the first account with its admin, and print a new key for it."""
    from controlplane.bootstrap import bootstrap
    from controlplane.config import load_settings

    settings = load_settings()
    result = _told_plainly(lambda: bootstrap(settings, with_key=True))
    sys.stdout.write(f"{result.key}\n")


@admin.command("create-account")
def create_account(
    account: Annotated[str, typer.Argument(help="Id of the new account.")], email: EmailOption
) -> None:
    """Make an account; nothing happens when it is there already."""
    from controlplane.bootstrap import ensure_account

    _in_session(lambda session: ensure_account(session, account, email))


@admin.command("create-user")
def create_user(
    user: Annotated[str, typer.Argument(help="Id of the new user.")],
    account: AccountOption,
    email: EmailOption,
    role: RoleOption = "user",
) -> None:
    """Make a user of an account; nothing happens when it is there already."""
    from controlplane.bootstrap import ensure_user
    from controlplane.names import check_id
    from controlplane.resources.tables import AccountRow

    if role not in ROLES:
        raise typer.BadParameter("must be admin or user", param_hint="--role")

    def make(session: Session) -> None:
        if session.get(AccountRow, account) is None:
            raise LookupError(f"account {account} does not exist")
        ensure_user(session, account, check_id(user, "user id"), email, role)

    _in_session(make)


@admin.command("create-key")
def create_key_command(
    account: AccountOption,
    user: UserOption = "admin",
    name: Annotated[str, typer.Option(help="What the key is called in lists.")] = "default",
) -> None:
    """Make a key for a user and print it. It is shown this once."""
    from sqlalchemy import select

    from controlplane.bootstrap import create_key
    from controlplane.resources.tables import UserRow

    def make(session: Session) -> str:
        row = session.scalar(select(UserRow).where(UserRow.account_id == account, UserRow.id == user))
        if row is None:
            raise LookupError(f"account {account} has no user {user}")
        return create_key(session, row, name)

    sys.stdout.write(f"{_in_session(make)}\n")


def _in_session(work: Callable[[Session], Result]) -> Result:
    from controlplane.config import load_settings
    from controlplane.db import Database

    database = Database(load_settings().database_url, pool_size=1)

    def transaction() -> Result:
        with database.session() as session:
            return work(session)

    try:
        return _told_plainly(transaction)
    finally:
        database.close()


def _told_plainly(work: Callable[[], Result]) -> Result:
    from launcher.setup import told_plainly

    with told_plainly():
        return work()
