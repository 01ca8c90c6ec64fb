"""Hearth as a client of one provider: the requests of OAuth 2.0 and OpenID Connect that sign-in needs."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from controlplane.signin.addresses import Refused, check_url
from controlplane.signin.discovery import Issuers, Metadata
from controlplane.signin.id_tokens import Untrusted, verify
from controlplane.signin.outbound import Answer, NoAnswer, fetch

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
ERROR_CODE = re.compile(r"[a-z_]{1,40}")
USER_CODE = re.compile(r"[!-~ ]{1,64}")
LONGEST_DEVICE_SECONDS = 1800
SLOWEST_POLL = 60


class Refusal(Exception):
    """The provider said no. Of its answer only the code is kept: its text may hold what was sent."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Tokens:
    """What the provider gave; empty where it gave nothing."""

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True)
class DeviceStart:
    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


@dataclass(frozen=True)
class Person:
    """Who somebody is, as a verified ID token says."""

    issuer: str
    subject: str
    email: str
    email_verified: bool
    name: str


@dataclass(frozen=True)
class Client:
    """Every method may raise NoAnswer and Refusal, and what reads an ID token also Untrusted."""

    issuers: Issuers
    metadata: Metadata
    client_id: str
    client_secret: str = field(repr=False)

    def authorization_url(self, redirect_uri: str, state: str, nonce: str, code_challenge: str) -> str:
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.client_id,
                "redirect_uri": redirect_uri,
                "scope": self._scope(),
                "state": state,
                "nonce": nonce,
                "code_challenge": code_challenge,
                "code_challenge_method": "S256",
            }
        )
        endpoint = self.metadata.authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    async def exchange(self, code: str, code_verifier: str, redirect_uri: str) -> Tokens:
        return await self._tokens(
            grant_type="authorization_code", code=code, code_verifier=code_verifier, redirect_uri=redirect_uri
        )

    async def refresh(self, refresh_token: str) -> Tokens:
        return await self._tokens(grant_type="refresh_token", refresh_token=refresh_token)

    async def start_device(self) -> DeviceStart:
        answer = await self._post(self.metadata.device_endpoint, {"scope": self._scope()})
        return read_device_start(answer.body, trusted=self.metadata.trusted)

    async def poll_device(self, device_code: str) -> Tokens:
        return await self._tokens(grant_type=DEVICE_GRANT, device_code=device_code)

    async def claims(self, tokens: Tokens, *, nonce: str = "") -> dict[str, Any]:
        """The claims of the ID token."""
        return await verify(self.issuers, self.metadata, self.client_id, tokens.id_token, nonce=nonce)

    async def person(self, tokens: Tokens, *, nonce: str = "") -> Person:
        claims = await self.claims(tokens, nonce=nonce)
        if "email" not in claims and self.metadata.userinfo_endpoint and tokens.access_token:
            claims = {**await self._userinfo(tokens.access_token, claims["sub"]), **claims}
        return Person(
            issuer=self.metadata.issuer,
            subject=claims["sub"],
            email=_text(claims, "email").strip(),
            # Some providers write booleans as strings.
            email_verified=claims.get("email_verified") in (True, "true"),
            name=_text(claims, "name"),
        )

    async def _userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        """What the provider keeps out of its ID tokens; it must be about the same subject."""
        answer = await fetch(
            self.metadata.userinfo_endpoint,
            trusted=self.metadata.trusted,
            headers={"Authorization": f"Bearer {access_token}"},
        )
        if answer.status != 200:
            raise NoAnswer(f"its userinfo endpoint answered {answer.status}")
        if answer.body.get("sub") != subject:
            raise Untrusted("the userinfo endpoint speaks of somebody else")
        return answer.body

    def _scope(self) -> str:
        offline = ["offline_access"] if "offline_access" in self.metadata.scopes else []
        return " ".join(["openid", "email", "profile", *offline])

    async def _tokens(self, **form: str) -> Tokens:
        body = (await self._post(self.metadata.token_endpoint, form)).body
        return Tokens(_text(body, "id_token"), _text(body, "access_token"), _text(body, "refresh_token"))

    async def _post(self, url: str, form: dict[str, str]) -> Answer:
        headers: dict[str, str] = {}
        form = {**form, "client_id": self.client_id}
        if self.client_secret and "client_secret_basic" in self.metadata.auth_methods:
            del form["client_id"]
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif self.client_secret:
            form["client_secret"] = self.client_secret
        answer = await fetch(url, trusted=self.metadata.trusted, form=form, headers=headers)
        if answer.status == 200 and "error" not in answer.body:
            return answer
        code = _text(answer.body, "error")
        if answer.status >= 500 or not ERROR_CODE.fullmatch(code):
            raise NoAnswer(f"it answered {answer.status}")
        raise Refusal(code)


def read_device_start(body: dict[str, Any], *, trusted: bool) -> DeviceStart:
    # One provider spells it `verification_url`.
    where = _text(body, "verification_uri") or _text(body, "verification_url")
    complete = _text(body, "verification_uri_complete")
    device_code, user_code = _text(body, "device_code"), _text(body, "user_code")
    if not device_code or not USER_CODE.fullmatch(user_code):
        raise NoAnswer("its device codes cannot be read")
    try:
        for url in filter(None, (where, complete)):
            check_url(url, trusted=trusted)
    except Refused as error:
        raise NoAnswer(f"its verification_uri cannot be used: {error}") from None
    if not where:
        raise NoAnswer("it names no verification_uri")
    expires_in = min(_number(body, "expires_in", 600), LONGEST_DEVICE_SECONDS)
    interval = min(_number(body, "interval", 5), SLOWEST_POLL)
    return DeviceStart(device_code, user_code, where, complete, expires_in, interval)


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _number(found: dict[str, Any], name: str, default: int) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
