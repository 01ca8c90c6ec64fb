"""The first account, its admin and a key: what a new platform needs before anybody can call it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.config import Settings
from controlplane.db import Database
from controlplane.names import check_id
from controlplane.resources.api_keys.schemas import ApiKey
from controlplane.resources.api_keys.service import new_key
from controlplane.resources.tables import AccountRow, UserRow


@dataclass(frozen=True)
class BootstrapResult:
    account_id: str
    user_id: str
    key: str | None
    """The new key in clear; None when no key was asked for."""


def bootstrap(settings: Settings, *, with_key: bool) -> BootstrapResult:
    """Make sure that the first account, the platform's account and an admin exist; add a key if asked.

    Running it again changes nothing but adding another key.
    """
    database = Database(settings.database_url, pool_size=1)
    try:
        with database.session() as session:
            for account_id in {settings.account_id, settings.platform_account}:
                ensure_account(session, account_id, settings.admin_email)
            admin = ensure_user(session, settings.account_id, "admin", settings.admin_email, "admin")
            key = create_key(session, admin, "bootstrap") if with_key else None
            return BootstrapResult(settings.account_id, admin.id, key)
    finally:
        database.close()


def ensure_account(session: Session, account_id: str, email: str) -> AccountRow:
    row = session.get(AccountRow, account_id)
    if row is None:
        row = AccountRow(id=check_id(account_id, "account id"), email=email, state="READY")
        session.add(row)
        session.flush()
    return row


def ensure_user(session: Session, account_id: str, user_id: str, email: str, role: str) -> UserRow:
    query = select(UserRow).where(UserRow.account_id == account_id, UserRow.id == user_id)
    row = session.scalar(query)
    if row is None:
        row = UserRow(account_id=account_id, id=user_id, email=email, role=role, state="READY")
        session.add(row)
        session.flush()
    return row


def create_key(session: Session, user: UserRow, display_name: str) -> str:
    row, key = new_key(user, ApiKey(display_name=display_name))
    session.add(row)
    return key
