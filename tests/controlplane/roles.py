"""Users of the tests, one for each role."""

from __future__ import annotations

from controlplane.bootstrap import create_key, ensure_account, ensure_user
from controlplane.db import Database


def add_user(db: Database, role: str, account_id: str = "hearth", user_id: str = "") -> str:
    """A key of a user of an account with this role; the user is made when first asked for."""
    chosen = user_id or f"the-{role}"
    with db.session() as session:
        ensure_account(session, account_id, f"owner@{account_id}.example")
        user = ensure_user(session, account_id, chosen, f"{chosen}@{account_id}.example", role)
        return create_key(session, user, "test")
