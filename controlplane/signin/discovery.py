"""What a provider says of itself: its discovery document and its keys, checked, and kept for an hour."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet

from controlplane.config import Settings
from controlplane.signin.addresses import Refused, check_url
from controlplane.signin.outbound import NoAnswer, fetch

FRESH_SECONDS = 3600.0
FAILED_SECONDS = 3.0
"""How long a provider that did not answer is left alone: anybody may begin a sign-in."""
MOST_ISSUERS = 1000
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""What ID tokens may be signed with: a provider's key pair, never a secret that others have as well."""
ASYMMETRIC = ("RSA", "EC", "OKP")
LONGEST_URL = 2048

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Metadata:
    """The part of a discovery document that sign-in needs; an endpoint that is not there is empty."""

    issuer: str
    trusted: bool
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_endpoint: str
    userinfo_endpoint: str
    scopes: frozenset[str]
    auth_methods: frozenset[str]


class Issuers:
    """The providers that this process has asked."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = frozenset(settings.trusted_issuers or ())
        self._metadata: dict[str, tuple[float, Metadata]] = {}
        self._keys: dict[str, tuple[float, KeySet]] = {}
        self._failures: dict[str, tuple[float, str]] = {}

    async def metadata(self, issuer: str, *, fresh: bool = False) -> Metadata:
        """NoAnswer when it cannot be had, or says something that cannot be used."""
        kept = None if fresh else _young(self._metadata, issuer, FRESH_SECONDS)
        if kept is not None:
            return kept
        failed = None if fresh else _young(self._failures, issuer, FAILED_SECONDS)
        if failed is not None:
            raise NoAnswer(failed)
        try:
            found = await self._discover(issuer)
        except NoAnswer as error:
            _keep(self._failures, issuer, str(error))
            raise
        self._failures.pop(issuer, None)
        _keep(self._metadata, issuer, found)
        return found

    async def _discover(self, issuer: str) -> Metadata:
        trusted = issuer in self._trusted
        answer = await fetch(issuer.rstrip("/") + "/.well-known/openid-configuration", trusted=trusted)
        if answer.status != 200:
            raise NoAnswer(f"its discovery document is not there: it answered {answer.status}")
        return read_metadata(answer.body, issuer, trusted=trusted)

    async def keys(self, metadata: Metadata, *, fresh: bool = False) -> KeySet:
        kept = None if fresh else _young(self._keys, metadata.jwks_uri, FRESH_SECONDS)
        if kept is not None:
            return kept
        answer = await fetch(metadata.jwks_uri, trusted=metadata.trusted)
        found = read_keys(answer.body)
        _keep(self._keys, metadata.jwks_uri, found)
        return found


def read_metadata(document: dict[str, Any], issuer: str, *, trusted: bool) -> Metadata:
    """NoAnswer says the first thing that is wrong with a discovery document."""
    if document.get("issuer") != issuer:
        raise NoAnswer(f"its discovery document is for the issuer {str(document.get('issuer'))[:200]!r}")
    algorithms = _strings(document, "id_token_signing_alg_values_supported") or {"RS256"}
    if algorithms.isdisjoint(ALGORITHMS):
        raise NoAnswer("it signs ID tokens with none of " + ", ".join(ALGORITHMS))
    if "code" not in (_strings(document, "response_types_supported") or {"code"}):
        raise NoAnswer("it does not offer the authorization code flow")
    return Metadata(
        issuer=issuer,
        trusted=trusted,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", trusted),
        token_endpoint=_endpoint(document, "token_endpoint", trusted),
        jwks_uri=_endpoint(document, "jwks_uri", trusted),
        device_endpoint=_endpoint(document, "device_authorization_endpoint", trusted, required=False),
        userinfo_endpoint=_endpoint(document, "userinfo_endpoint", trusted, required=False),
        scopes=_strings(document, "scopes_supported"),
        auth_methods=_strings(document, "token_endpoint_auth_methods_supported")
        or frozenset({"client_secret_basic"}),
    )


def read_keys(document: dict[str, Any]) -> KeySet:
    """The keys that can verify a signature; others in the set are passed over."""
    listed = document.get("keys")
    usable: list[Key] = []
    for key in listed if isinstance(listed, list) else []:
        if isinstance(key, dict) and key.get("kty") in ASYMMETRIC:
            with suppress(JoseError, ValueError, TypeError, KeyError):
                usable.append(JWKRegistry.import_key(key))
    if not usable:
        raise NoAnswer("it publishes no key that can be used")
    return KeySet(usable)


def _endpoint(document: dict[str, Any], name: str, trusted: bool, *, required: bool = True) -> str:
    value = document.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_URL:
        raise NoAnswer(f"its discovery document has no {name}")
    try:
        check_url(value, trusted=trusted)
    except Refused as error:
        raise NoAnswer(f"its {name} cannot be used: {error}") from None
    return value


def _strings(document: dict[str, Any], name: str) -> frozenset[str]:
    value = document.get(name)
    listed = value if isinstance(value, list) else []
    return frozenset(item for item in listed if isinstance(item, str))


def _young(kept: dict[str, tuple[float, Kept]], name: str, seconds: float) -> Kept | None:
    since, value = kept.get(name, (0.0, None))
    return value if value is not None and time.monotonic() - since < seconds else None


def _keep(kept: dict[str, tuple[float, Kept]], name: str, value: Kept) -> None:
    kept.pop(name, None)
    kept[name] = (time.monotonic(), value)
    if len(kept) > MOST_ISSUERS:
        kept.pop(next(iter(kept)))
