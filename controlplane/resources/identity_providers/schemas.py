from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SecretStr

from controlplane.permissions import CONTRIBUTOR, INFERENCE_USER, USER
from controlplane.resources.identity_providers.tables import IdentityProviderRow
from controlplane.rest.schema import ApiModel, OneOf, Timestamp, output_only, write_only

MOST_DOMAINS = 100
STATES = ("STATE_UNSPECIFIED", "READY", "DISABLED")
DEFAULT_ROLES = (USER, CONTRIBUTOR, INFERENCE_USER)


class OidcConfig(ApiModel):
    """How Hearth is registered at an OpenID Connect provider."""

    issuer_url: Annotated[
        str, Field(max_length=2048, description="Exactly as in the provider's discovery document; https.")
    ] = ""
    client_id: Annotated[str, Field(max_length=512)] = ""
    client_secret: SecretStr = write_only(
        max_length=2048,
        description="Stored encrypted; none for a public client. An update without it keeps it.",
    )


class IdentityProvider(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "saml_config": "sign-in by SAML is not available yet; use oidcConfig"
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    create_time: Timestamp | None = output_only()
    update_time: Timestamp | None = output_only()
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    saml_config: dict[str, Any] | None = None
    oidc_config: OidcConfig | None = None
    tenant_domains: Annotated[
        list[Annotated[str, Field(max_length=253)]],
        Field(
            max_length=MOST_DOMAINS,
            description="E-mail domains; each belongs to one provider of the platform.",
        ),
    ] = Field(default_factory=list)
    enforce_sso: Annotated[
        bool, Field(description="API keys of people of these domains do not work: they have to sign in.")
    ] = False
    enable_jit_user_provisioning: Annotated[
        bool, Field(description="Who signs in and is no user yet becomes one.")
    ] = False
    default_role: Annotated[
        str, OneOf(*DEFAULT_ROLES), Field(description="The role of users made just in time; never admin.")
    ] = DEFAULT_ROLES[0]
    disabled: Annotated[bool, Field(description="Nobody signs in with it, and who is signed in is out.")] = (
        False
    )

    @classmethod
    def of(cls, row: IdentityProviderRow) -> Self:
        return cls(
            name=f"accounts/{row.account_id}/identityProviders/{row.id}",
            display_name=row.display_name,
            create_time=row.create_time,
            update_time=row.update_time,
            state="DISABLED" if row.disabled else "READY",
            oidc_config=OidcConfig(issuer_url=row.issuer_url, client_id=row.client_id),
            tenant_domains=row.domain_names,
            enforce_sso=row.enforce_sso,
            enable_jit_user_provisioning=row.enable_jit_user_provisioning,
            default_role=row.default_role,
            disabled=row.disabled,
        )
