from __future__ import annotations

import re
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.db import now
from controlplane.encryption import Cipher
from controlplane.errors import already_exists, failed_precondition, invalid
from controlplane.names import ResourceName, check_id
from controlplane.resources.identity_providers.schemas import IdentityProvider, OidcConfig
from controlplane.resources.identity_providers.tables import IdentityProviderRow, TenantDomainRow
from controlplane.resources.tables import ApiKeyRow, UserSessionRow
from controlplane.rest.access import find, insert
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes
from controlplane.signin import sessions
from controlplane.signin.discovery import Issuers
from controlplane.signin.outbound import NoAnswer

DOMAIN = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
CLIENT_ID = re.compile(r"[!-~]+")
AUTH_METHODS = {"client_secret_basic", "client_secret_post"}


async def check_issuer(issuers: Issuers, config: OidcConfig | None) -> None:
    """Ask the provider itself whether sign-in can work with it; 400 with what is wrong."""
    if config is None or not config.issuer_url:
        raise invalid("oidcConfig.issuerUrl is required", "oidcConfig.issuerUrl")
    if not CLIENT_ID.fullmatch(config.client_id):
        raise invalid("oidcConfig.clientId is required, without spaces", "oidcConfig.clientId")
    try:
        metadata = await issuers.metadata(config.issuer_url, fresh=True)
        await issuers.keys(metadata, fresh=True)
    except NoAnswer as error:
        raise invalid(
            f"the issuer {config.issuer_url} cannot be used: {error}", "oidcConfig.issuerUrl"
        ) from None
    if metadata.auth_methods.isdisjoint(AUTH_METHODS) and config.client_secret.get_secret_value():
        raise invalid(
            f"the issuer takes a client secret by none of {', '.join(sorted(AUTH_METHODS))}",
            "oidcConfig.issuerUrl",
        )


async def changed_config(
    session: AsyncSession, name: ResourceName, body: IdentityProvider, mask: str
) -> OidcConfig | None:
    """The configuration that a PATCH would bring; None when it stays as it is."""
    row = await find(session, IdentityProviderRow, name)
    changed = changes(session, body, mask, IdentityProvider.of(row))
    return (changed["oidc_config"] or OidcConfig()) if "oidc_config" in changed else None


async def create_provider(
    session: AsyncSession, cipher: Cipher, account_id: str, provider_id: str, body: IdentityProvider
) -> IdentityProviderRow:
    """A new provider, whose issuer was checked."""
    given = body.given()
    if given.get("enforce_sso"):
        raise failed_precondition(TRY_FIRST)
    config = body.oidc_config or OidcConfig()
    row = IdentityProviderRow(
        account_id=account_id,
        id=check_id(provider_id, "identityProviderId"),
        display_name=body.display_name,
        issuer_url=config.issuer_url,
        client_id=config.client_id,
        client_secret=cipher.encrypt(config.client_secret.get_secret_value()),
        enforce_sso=False,
        enable_jit_user_provisioning=body.enable_jit_user_provisioning,
        default_role=body.default_role,
        disabled=body.disabled,
        domains=[],
    )
    await insert(session, row, f"accounts/{account_id}/identityProviders/{row.id}")
    await claim_domains(session, row, body.tenant_domains)
    return row


async def update_provider(
    session: AsyncSession,
    cipher: Cipher,
    caller: Caller,
    name: ResourceName,
    body: IdentityProvider,
    mask: str,
) -> IdentityProviderRow:
    row = await find(session, IdentityProviderRow, name, lock=True)
    changed = changes(session, body, mask, IdentityProvider.of(row))
    if changed.get("enforce_sso"):
        await check_enforcer(session, row, caller)
    ends_sessions = bool(changed.get("disabled"))
    if "oidc_config" in changed:
        ends_sessions |= change_config(row, cipher, changed.pop("oidc_config"))
    if "tenant_domains" in changed:
        before = set(row.domain_names)
        await claim_domains(session, row, changed.pop("tenant_domains"))
        ends_sessions |= not before <= set(row.domain_names)
        row.update_time = now()  # the domains are rows of their own
    apply(row, changed)
    if ends_sessions:
        await sessions.end_all_of_provider(session, row.uid)
    return row


async def delete_provider(session: AsyncSession, name: ResourceName) -> None:
    """Who signed in with it is signed out."""
    row = await find(session, IdentityProviderRow, name, lock=True)
    refuse_other_version(session, IdentityProvider.of(row))
    await session.delete(row)


def change_config(row: IdentityProviderRow, cipher: Cipher, config: OidcConfig | None) -> bool:
    """Take over what was checked; True when it is another provider, or another client of it, now."""
    config = config or OidcConfig()
    is_other = (row.issuer_url, row.client_id) != (config.issuer_url, config.client_id)
    row.issuer_url, row.client_id = config.issuer_url, config.client_id
    if secret := config.client_secret.get_secret_value():
        row.client_secret = cipher.encrypt(secret)
    elif is_other and cipher.decrypt(row.client_secret):
        raise invalid(
            "another issuer or client has another secret: send oidcConfig.clientSecret as well",
            "oidcConfig.clientSecret",
        )
    return is_other


def apply(row: IdentityProviderRow, changed: dict[str, Any]) -> None:
    for name, value in changed.items():
        setattr(row, name, value)


async def claim_domains(session: AsyncSession, row: IdentityProviderRow, wanted: list[str]) -> None:
    """Make these the provider's domains; 409 when another one has one of them."""
    names = checked_domains(wanted)
    kept = [owned for owned in row.domains if owned.domain in names]
    new = names - {owned.domain for owned in kept}
    taken = await session.scalar(
        select(TenantDomainRow.domain).where(TenantDomainRow.domain.in_(new)).limit(1)
    )
    if taken:
        raise domain_taken(taken)
    row.domains = [*kept, *(TenantDomainRow(domain=name) for name in sorted(new))]
    try:
        await session.flush()
    except IntegrityError as error:
        if "pk_tenant_domains" in str(error.orig):
            raise domain_taken("one of tenantDomains") from None
        raise


def domain_taken(domain: str) -> Exception:
    error = already_exists(f"{domain} as a tenant domain")
    error.message += ", at another identity provider; ask the operator of the platform"
    return error


def checked_domains(wanted: list[str]) -> set[str]:
    names = {name.strip().lower() for name in wanted}
    for name in sorted(names):
        if not DOMAIN.fullmatch(name):
            raise invalid(
                f"{name!r} is not a domain of e-mail addresses, such as example.com", "tenantDomains"
            )
    if not names:
        raise invalid(
            "tenantDomains must name a domain: only people of these domains sign in", "tenantDomains"
        )
    return names


TRY_FIRST = (
    "enforceSso can be set only by an admin who is signed in with this very provider, so that a mistake "
    "in it locks nobody out: create it without, sign in, then set enforceSso"
)


async def check_enforcer(session: AsyncSession, row: IdentityProviderRow, caller: Caller) -> None:
    provider_uid = await session.scalar(
        select(UserSessionRow.provider_uid)
        .join(ApiKeyRow, ApiKeyRow.session_uid == UserSessionRow.uid)
        .where(ApiKeyRow.uid == caller.key_uid)
    )
    if provider_uid != row.uid:
        raise failed_precondition(TRY_FIRST)
