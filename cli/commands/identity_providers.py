"""Identity providers: people of a company sign in with the company's own."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import CliError, UsageError
from cli.language.flags import group, refuse, refused
from cli.language.hidden import given_value
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command

_NO_SAML = "sign-in by SAML is not available; use --oidc-issuer"
_ID_LENGTH = 63
_OIDC = group(
    "OpenID Connect",
    Flag("oidc-issuer", "oidcConfig.issuerUrl", "The issuer, exactly as it spells itself; https."),
    Flag("oidc-client-id", "oidcConfig.clientId", "The id under which this server is registered there."),
    Flag("oidc-client-secret", "oidcConfig.clientSecret", "The secret that goes with it; kept encrypted."),
)
_FLAGS = (
    Flag("display-name", "displayName", "A name for people."),
    Flag("tenant-domains", "tenantDomains", "E-mail domains whose people sign in with it.", Kind.WORDS),
    Flag(
        "enable-jit-user-provisioning",
        "enableJitUserProvisioning",
        "Make a user of whoever signs in and is none yet.",
        Kind.SWITCH,
    ),
    Flag("jit-default-role", "defaultRole", "Their role.", choices=("user", "contributor", "inference-user")),
    Flag("enforce-sso", "enforceSso", "Refuse the API keys of people of these domains.", Kind.SWITCH),
    Flag("disabled", "disabled", "Let nobody sign in with it, and end who is signed in.", Kind.SWITCH),
    *_OIDC,
    refused("saml-metadata-url", _NO_SAML),
    refused("saml-metadata-xml-file", _NO_SAML),
    refused("enable-idp-initiated-sso", _NO_SAML, Kind.SWITCH),
)
_CREATE = (
    Flag("identity-provider-id", "?identityProviderId", "The id; made of the display name by default."),
    *_FLAGS,
)
_SECRET_FILE = typer.Option(
    "--oidc-client-secret-file",
    metavar="PATH",
    help="A file with the secret, so that it is in no list of processes.",
    show_default=False,
)


@command(
    "create",
    "identity-provider",
    flags=_CREATE,
    example=(
        "firectl create identity-provider --display-name Company --oidc-issuer https://login.example.com "
        "--oidc-client-id hearth --tenant-domains example.com"
    ),
    see_also=("list identity-providers", "signin", "create user"),
)
def create_identity_provider(
    session: Session, fields: Fields, secret_file: Annotated[Path | None, _SECRET_FILE] = None
) -> None:
    """Let people sign in with an OpenID Connect provider. Only admins may.

    Without --tenant-domains it is for the domain of the account's own e-mail address.
    """
    refuse(fields, _CREATE)
    body = _with_secret(session, fields, secret_file)
    query = {"identityProviderId": _wanted_id(fields)}
    _require(body.get("oidcConfig") or {})
    if "tenantDomains" not in body:
        body["tenantDomains"] = [_own_domain(session)]
    parent = session.parent("identity-provider")
    session.output.resource(session.client.call("POST", parent, query=query, body=body))


@command(
    "update",
    "identity-provider",
    flags=_FLAGS,
    example="firectl update identity-provider company --enable-jit-user-provisioning",
    see_also=("get identity-provider", "list identity-providers"),
)
def update_identity_provider(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="Its id or name.")],
    fields: Fields,
    secret_file: Annotated[Path | None, _SECRET_FILE] = None,
) -> None:
    """Change an identity provider. Only admins may."""
    refuse(fields, _FLAGS)
    _with_secret(session, fields, secret_file)
    standard.update(session, "identity-provider", id, fields)


def _with_secret(session: Session, fields: Fields, file: Path | None) -> dict[str, Any]:
    """The body with the client's secret, which a dry run does not show."""
    config = fields.body.get("oidcConfig") or {}
    secret = given_value(session, config.get("clientSecret"), file)
    if secret is not None:
        fields.body["oidcConfig"] = {**config, "clientSecret": secret}
        if "clientSecret" not in config:
            fields.paths.append("oidcConfig.clientSecret")
    return fields.body


def _wanted_id(fields: Fields) -> str:
    given = str(fields.query.get("identityProviderId") or "")
    made = re.sub(r"[^a-z0-9]+", "-", str(fields.body.get("displayName") or "").lower())
    id = given or made[:_ID_LENGTH].strip("-")
    if not id:
        raise UsageError("what is it called? Give --display-name, or --identity-provider-id")
    return id


def _require(config: dict[str, Any]) -> None:
    for key, flag in (("issuerUrl", "--oidc-issuer"), ("clientId", "--oidc-client-id")):
        if not config.get(key):
            raise UsageError(f"{flag} is needed", advice=["firectl create identity-provider --help"])


def _own_domain(session: Session) -> str:
    """The domain of the account's address."""
    session.ask_account()
    account = session.client.look(f"accounts/{session.account_id}")
    domain = str(account.get("email") or "").rpartition("@")[2]
    if not domain:
        raise CliError("the account has no e-mail address to take the domain from; name --tenant-domains")
    session.output.note(f"For people of {domain}, the domain of the account's address")
    return domain
