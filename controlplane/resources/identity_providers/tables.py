from __future__ import annotations

import uuid

from sqlalchemy import ForeignKey, ForeignKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db import Base, ResourceColumns


class TenantDomainRow(Base):
    """An e-mail domain whose people sign in through a provider; a domain belongs to one provider."""

    __tablename__ = "tenant_domains"

    domain: Mapped[str] = mapped_column(String(253), primary_key=True)
    provider_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("identity_providers.uid", ondelete="CASCADE"), index=True
    )


class IdentityProviderRow(ResourceColumns, Base):
    """An OpenID Connect provider that people of an account sign in with."""

    __tablename__ = "identity_providers"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
    )

    issuer_url: Mapped[str]
    client_id: Mapped[str]
    client_secret: Mapped[str]
    """Encrypted; what it decrypts to is empty for a public client."""
    enforce_sso: Mapped[bool]
    enable_jit_user_provisioning: Mapped[bool]
    default_role: Mapped[str] = mapped_column(String(40))
    disabled: Mapped[bool]
    domains: Mapped[list[TenantDomainRow]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", passive_deletes=True, order_by=TenantDomainRow.domain
    )

    @property
    def domain_names(self) -> list[str]:
        return sorted(row.domain for row in self.domains)
