"""`enforceSso`: whose API keys do not work, because they have to sign in."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, false, func, select, true

from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.identity_providers.tables import IdentityProviderRow, TenantDomainRow
from controlplane.resources.users.tables import UserRow


def must_sign_in() -> ColumnElement[bool]:
    """For a query of users: a person, no service account, of a domain whose provider enforces sign-in."""
    domain = func.lower(func.split_part(UserRow.email, "@", 2))
    enforced = (
        select(true())
        .select_from(IdentityProviderRow)
        .join(TenantDomainRow, TenantDomainRow.provider_uid == IdentityProviderRow.uid)
        .where(
            IdentityProviderRow.account_id == UserRow.account_id,
            IdentityProviderRow.enforce_sso,
            IdentityProviderRow.disabled.is_(False),
            TenantDomainRow.domain == domain,
        )
        .correlate(UserRow)
        .limit(1)
    )
    # Not EXISTS: Postgres makes a join of that, and a slow one as long as it knows little of the tables.
    # This is a look at two indexes for each user.
    found = func.coalesce(enforced.scalar_subquery(), false())
    return and_(UserRow.service_account.is_(False), found)


def refused_key() -> ColumnElement[bool]:
    """For a query of keys and their users: a key that does not work, since it is no sign-in's token."""
    return and_(ApiKeyRow.session_uid.is_(None), must_sign_in())
