from __future__ import annotations

from sqlalchemy import case

from controlplane.resources.identity_providers.schemas import DEFAULT_ROLES, STATES, IdentityProvider
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.rest.filters.fields import boolean, enum, text
from controlplane.rest.listing import Listing, resource_fields

STATE = case((IdentityProviderRow.disabled, "DISABLED"), else_="READY")

LISTING = Listing(
    key="identityProviders",
    message=IdentityProvider,
    unique=IdentityProviderRow.id,
    fields={
        **resource_fields(IdentityProviderRow, "identityProviders"),
        "state": enum(STATE, STATES),
        "oidc_config.issuer_url": text(IdentityProviderRow.issuer_url),
        "oidc_config.client_id": text(IdentityProviderRow.client_id),
        "enforce_sso": boolean(IdentityProviderRow.enforce_sso),
        "enable_jit_user_provisioning": boolean(IdentityProviderRow.enable_jit_user_provisioning),
        "default_role": enum(IdentityProviderRow.default_role, DEFAULT_ROLES),
        "disabled": boolean(IdentityProviderRow.disabled),
    },
)
