from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, now


class SignInRow(Base):
    """A sign-in that has begun and is not finished: in a browser here, or by a device code."""

    __tablename__ = "sign_ins"

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    provider_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("identity_providers.uid", ondelete="CASCADE"), index=True
    )
    handle_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the `state` or the device code that only the client holds."""
    client_address: Mapped[str] = mapped_column(String(64), index=True)
    create_time: Mapped[datetime] = mapped_column(default=now)
    expire_time: Mapped[datetime] = mapped_column(index=True)

    redirect_uri: Mapped[str] = mapped_column(default="")
    code_challenge: Mapped[str] = mapped_column(default="")
    nonce: Mapped[str] = mapped_column(default="")

    device_code: Mapped[str] = mapped_column(default="")
    """The provider's own, encrypted; empty for a sign-in in a browser."""
    interval: Mapped[int] = mapped_column(default=0)
    """Seconds between two polls."""
    next_poll_time: Mapped[datetime | None] = mapped_column(default=None)


class UserSessionRow(Base):
    """Somebody who is signed in. Access tokens are API keys with a `session_uid`, and go with this row."""

    __tablename__ = "user_sessions"

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    user_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.uid", ondelete="CASCADE"), index=True)
    provider_uid: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("identity_providers.uid", ondelete="CASCADE"), index=True
    )
    family_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the half that all refresh tokens of this session share."""
    refresh_hash: Mapped[str] = mapped_column(String(64))
    """Of the half that only the newest one has."""
    subject: Mapped[str]
    provider_refresh_token: Mapped[str] = mapped_column(default="")
    """Encrypted; empty when the provider gave none."""
    create_time: Mapped[datetime] = mapped_column(default=now)
    refresh_time: Mapped[datetime] = mapped_column(default=now)
    expire_time: Mapped[datetime] = mapped_column(index=True)


class UserIdentityRow(Base):
    """Who a user is at an issuer, bound at the first sign-in: an e-mail address may change hands."""

    __tablename__ = "user_identities"
    __table_args__ = (
        UniqueConstraint("account_id", "issuer", "subject"),
        UniqueConstraint("user_uid", "issuer"),
    )

    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    account_id: Mapped[str] = mapped_column(String(63))
    user_uid: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.uid", ondelete="CASCADE"))
    issuer: Mapped[str]
    subject: Mapped[str]
    create_time: Mapped[datetime] = mapped_column(default=now)
