"""`hearth admin`: accounts, users and keys, made straight in the database by whoever runs the platform."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from launcher.database import in_session
from launcher.limits import reservations, set_quota

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from controlplane.encryption import Rotation

admin = typer.Typer(help="Make accounts, users and keys, straight in the database.", no_args_is_help=True)
admin.command("set-quota")(set_quota)
admin.add_typer(reservations, name="reservations")

AccountOption = Annotated[str, typer.Option("--account", help="Id of the account.")]
UserOption = Annotated[str, typer.Option("--user", help="Id of the user.")]
EmailOption = Annotated[str, typer.Option("--email", help="Where the person can be reached.")]
RoleOption = Annotated[str, typer.Option("--role", help="admin, user, contributor or inference-user.")]

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

    in_session(lambda session: ensure_account(session, account, email))


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
    from controlplane.permissions import ROLES
    from controlplane.resources.tables import AccountRow

    if role not in ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(ROLES)}", param_hint="--role")

    def make(session: Session) -> None:
        if session.get(AccountRow, account) is None:
            raise LookupError(f"account {account} does not exist")
        ensure_user(session, account, check_id(user, "user id"), email, role)

    in_session(make)


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

    sys.stdout.write(f"{in_session(make)}\n")


@admin.command("create-secret-key")
def create_secret_key() -> None:
    """Print a new key for HEARTH_SECRET_KEYS."""
    from controlplane.encryption import generate_secret_key

    sys.stdout.write(f"{generate_secret_key()}\n")


@admin.command("rotate-secrets")
def rotate_secrets() -> None:
    """Encrypt all stored secrets anew, with the first key of HEARTH_SECRET_KEYS."""
    from controlplane.config import load_settings
    from controlplane.db import Database
    from controlplane.encryption import Cipher, rotate

    settings = load_settings()
    if settings.secret_keys is None:
        sys.exit("hearth: HEARTH_SECRET_KEYS: is not set")
    database = Database(settings.database_url, pool_size=1)
    try:
        done = _told_plainly(lambda: rotate(database, Cipher.from_settings(settings)))
    finally:
        database.close()
    _tell_rotation(done)


def _tell_rotation(done: Rotation) -> None:
    sys.stdout.write(
        f"{done.changed} encrypted with the first key now; {done.current} were already; "
        f"{len(done.failed)} cannot be read\n"
    )
    for name in done.failed:
        sys.stderr.write(f"hearth: {name}: no key of HEARTH_SECRET_KEYS decrypts it\n")
    if done.failed:
        sys.exit("hearth: keep the old keys; put back the missing one and run this again, or set these anew")
    sys.stdout.write("the keys after the first may be removed from HEARTH_SECRET_KEYS\n")


def _told_plainly(work: Callable[[], Result]) -> Result:
    from launcher.setup import told_plainly

    with told_plainly():
        return work()
