"""ID tokens: who signed one, for whom, when, and in answer to which sign-in."""

from __future__ import annotations

from typing import Any

from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from controlplane.signin.discovery import ALGORITHMS, Issuers, Metadata

LEEWAY_SECONDS = 60


class Untrusted(Exception):
    """An ID token that proves nothing; the text says why, and holds nothing of it."""


async def verify(
    issuers: Issuers, metadata: Metadata, client_id: str, token: str, *, nonce: str = ""
) -> dict[str, Any]:
    """The claims of a token that this issuer made for this client, or Untrusted.

    A key that is not known makes the issuer's keys be read again, once: it may have a new one.
    """
    try:
        claims = _signed_claims(token, await issuers.keys(metadata))
    except InvalidKeyIdError:
        claims = _signed_claims(token, await issuers.keys(metadata, fresh=True), last=True)
    _check_claims(claims, metadata.issuer, client_id, nonce)
    return claims


def _signed_claims(token: str, keys: KeySet, *, last: bool = False) -> dict[str, Any]:
    try:
        return jwt.decode(token, keys, algorithms=ALGORITHMS).claims
    except InvalidKeyIdError:
        if not last:
            raise
        raise Untrusted("it is signed with a key that the issuer does not publish") from None
    except (JoseError, ValueError, TypeError) as error:
        # A `JoseError` has a fixed name; its text may quote the token.
        raise Untrusted(f"its signature does not verify ({getattr(error, 'error', 'malformed')})") from None


def _check_claims(claims: dict[str, Any], issuer: str, client_id: str, nonce: str) -> None:
    wanted: dict[str, Any] = {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": client_id},
        "sub": {"essential": True},
        "exp": {"essential": True},
        "iat": {"essential": True},
    }
    if nonce:
        wanted["nonce"] = {"essential": True, "value": nonce}
    if "azp" in claims or (isinstance(claims.get("aud"), list) and len(claims["aud"]) > 1):
        wanted["azp"] = {"essential": True, "value": client_id}
    try:
        JWTClaimsRegistry(leeway=LEEWAY_SECONDS, **wanted).validate(claims)
    except ClaimError as error:
        raise Untrusted(f"its claim {error.claim} is wrong or missing") from None
