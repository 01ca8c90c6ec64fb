"""Sign-in under test: the real app over a real socket, with a real OpenID Connect provider.

Platform and provider run once for all these tests; each test has an account and a domain of its own.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from controlplane.app import create_app
from controlplane.bootstrap import bootstrap, create_key, ensure_account, ensure_user
from controlplane.config import Settings
from controlplane.db import Database
from controlplane.encryption import generate_secret_key
from launcher.embedded import Services
from tests.gateway.serving import serving
from tests.identity import provider_server
from tests.identity.browser import visit
from tests.identity.provider_server import Provider

REDIRECT = "http://127.0.0.1:7777/callback"


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    provider_server.install()
    running = provider_server.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def spare_port() -> int:
    """A port on which a test may start a provider of its own, that it stops and starts again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def hearth_settings(
    platform_services: Services,
    template_database: str,
    provider: Provider,
    spare_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    # Other folders ask for this fixture too, and each of them gets one of its own.
    url, name = make_url(platform_services.postgres.url), f"identity_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(platform_services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
    settings = Settings(
        database_url=url.set(database=name).render_as_string(False),
        redis_url=platform_services.valkey.url,
        s3_endpoint=platform_services.seaweedfs.endpoint,
        s3_access_key=platform_services.seaweedfs.access_key,
        s3_secret_key=platform_services.seaweedfs.secret_key,
        data_dir=tmp_path_factory.mktemp("identity"),
        secret_keys=SecretStr(generate_secret_key()),
        trusted_issuers=(provider.issuer, f"http://127.0.0.1:{spare_port}"),
    )
    bootstrap(settings, with_key=False)
    return settings


@pytest.fixture(scope="session")
def url(hearth_settings: Settings) -> Iterator[str]:
    """Where the control plane answers."""
    with pytest.MonkeyPatch.context() as patch:
        # All tests come from one address, and many of them leave a sign-in unfinished.
        patch.setattr("controlplane.signin.pending.MOST_OF_AN_ADDRESS", 10_000)
        with serving(create_app(hearth_settings), lifespan="on") as address:
            yield address


@pytest.fixture(scope="session")
def db(hearth_settings: Settings) -> Iterator[Database]:
    database = Database(hearth_settings.database_url, pool_size=2)
    yield database
    database.close()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """The app without a key."""
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@dataclass
class Account:
    """An account, its admin's client, and the domain whose people are to sign in to it."""

    id: str
    admin: httpx.Client
    provider: Provider
    key: str
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def domain(self) -> str:
        return f"{self.id}.example"

    @property
    def path(self) -> str:
        return f"/v1/accounts/{self.id}"

    @property
    def providers(self) -> str:
        return f"{self.path}/identityProviders"

    def email(self, name: str) -> str:
        return f"{name}@{self.domain}"

    def person(self, name: str, email: str | None = None, **claims: Any) -> str:
        """Somebody of this domain whom the provider knows; returns whom to log in as."""
        login = f"{name}-{self.id}"
        self.provider.knows(login, self.email(name) if email is None else email, **claims)
        return login

    def user(self, name: str, **fields: Any) -> None:
        body = {"email": self.email(name), "role": "user", **fields}
        answer = self.admin.post(f"{self.path}/users?userId={name}", json=body)
        assert answer.status_code == 200, answer.text

    def set_up(self, *, client: str = "hearth", secret: str | None = None, **changed: Any) -> dict[str, Any]:
        """Sign-in with the provider."""
        answer = self.create_provider(**{"oidcConfig": self.config(client, secret), **changed})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def create_provider(self, id: str = "company", **changed: Any) -> httpx.Response:
        body = {
            "displayName": "Company",
            "oidcConfig": self.config(),
            "tenantDomains": [self.domain],
            "enableJitUserProvisioning": True,
            **changed,
        }
        return self.admin.post(f"{self.providers}?identityProviderId={id}", json=body)

    def change(self, **fields: Any) -> httpx.Response:
        return self.admin.patch(f"{self.providers}/company", json=fields)

    def config(self, client: str = "hearth", secret: str | None = None) -> dict[str, str]:
        secret = f"{client}-secret" if secret is None else secret
        return {"issuerUrl": self.provider.issuer, "clientId": client, "clientSecret": secret}

    def client(self, credential: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {credential}"}
        self.clients.append(httpx.Client(base_url=self.admin.base_url, headers=headers, timeout=30))
        return self.clients[-1]


@pytest.fixture
def account(url: str, db: Database, provider: Provider) -> Iterator[Account]:
    made = new_account(url, db, provider)
    yield made
    provider.answers_tokens_with("")
    for client in (made.admin, *made.clients):
        client.close()


@pytest.fixture
def rival(url: str, db: Database, provider: Provider) -> Iterator[Account]:
    made = new_account(url, db, provider)
    yield made
    made.admin.close()


def new_account(url: str, db: Database, provider: Provider, name: str = "") -> Account:
    name = name or f"a{uuid.uuid4().hex[:8]}"
    with db.session() as session:
        ensure_account(session, name, f"admin@{name}.test")
        admin = ensure_user(session, name, "admin", f"admin@{name}.test", "admin")
        key = create_key(session, admin, "test")
    headers = {"Authorization": f"Bearer {key}"}
    return Account(name, httpx.Client(base_url=url, headers=headers, timeout=30), provider, key)


@dataclass
class SignIn:
    """A client of Hearth that signs people in, as firectl does, one step at a time."""

    http: httpx.Client
    account: Account
    verifier: str = ""

    def start(self, **more: Any) -> httpx.Response:
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        body = {"account": self.account.id, "redirectUri": REDIRECT, "codeChallenge": challenge, **more}
        return self.http.post("/v1/auth/signIn:start", json=body)

    def come_back(self, person: str, **more: Any) -> dict[str, str]:
        """What the browser brings back from the provider."""
        started = self.start(**more)
        assert started.status_code == 200, started.text
        address = visit(started.json()["authorizationUrl"], person, stop_before=REDIRECT)
        assert isinstance(address, str), address.text
        return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}

    def finish(self, returned: dict[str, str], **changed: str) -> httpx.Response:
        body = {"state": returned["state"], "code": returned["code"], "codeVerifier": self.verifier}
        return self.http.post("/v1/auth/signIn:finish", json={**body, **changed})

    def whole(self, person: str, **more: Any) -> httpx.Response:
        return self.finish(self.come_back(person, **more))

    def tokens(self, person: str, **more: Any) -> dict[str, Any]:
        answer = self.whole(person, **more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refresh(self, tokens: dict[str, Any]) -> httpx.Response:
        return self.http.post("/v1/auth/refresh", json={"refreshToken": tokens["refreshToken"]})

    def works(self, tokens: dict[str, Any]) -> bool:
        """Whether the access token does."""
        headers = {"Authorization": f"Bearer {tokens['accessToken']}"}
        answer = self.http.get("/verifyApiKey", headers=headers)
        assert answer.status_code in (200, 401)
        return answer.status_code == 200


@pytest.fixture
def sign_in(http: httpx.Client, account: Account) -> SignIn:
    return SignIn(http, account)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home folder of somebody who runs firectl."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """(status, message) of an error."""
    return answer.status_code, answer.json().get("message", "")
