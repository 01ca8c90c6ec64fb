"""Signing in through the account's identity provider, and out again."""

import base64
import hashlib
import os
import secrets
import sys
import threading
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.connection import profile
from cli.connection.client import ApiClient, is_outage
from cli.connection.session import Session
from cli.connection.signed_in import sign_out, tokens_of
from cli.errors import ApiError, CliError, DryRun
from cli.language.registry import command

_BROWSER_SECONDS = 600.0
_KEY_ADVICE = ["or use a key: firectl set-api-key KEY"]


@command("signin", example="firectl signin my-account", see_also=("signout", "whoami", "set-api-key"))
def signin(
    session: Session,
    account: Annotated[
        str | None,
        typer.Argument(metavar="[ACCOUNT_ID]", help="The account; that of the profile by default."),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser",
            help="Open a browser here, or show a code for one elsewhere; by default as there is a display.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", help="The port of this machine that the browser comes back to; 0 is any.")
    ] = 0,
    identity_provider: Annotated[
        str | None, typer.Option("--identity-provider", help="Which one, where the account has several.")
    ] = None,
) -> None:
    """Sign in through the account's identity provider. The tokens are kept in ~/.fireworks/auth.ini."""
    base_url, account_id = _where(session, account)
    client = ApiClient(
        profile.Connection("", "", base_url),
        dry_run=session.dry_run,
        trace=sys.stderr if session.debug else None,
    )
    request = {"account": account_id, "identityProvider": identity_provider or ""}
    try:
        if browser if browser is not None else _has_display():
            answer = _in_browser(session, client, request, port)
        else:
            answer = _by_device_code(session, client, request)
    except ApiError as error:
        error.advice += _advice(error, account_id)
        raise
    _keep(session, base_url, answer)


@command("signout", example="firectl signout", see_also=("signin", "whoami"))
def signout(
    session: Session,
    everything: Annotated[
        bool, typer.Option("--all", help="Of every profile, and forget the keys too.")
    ] = False,
) -> None:
    """Sign out: the tokens end at the server, and leave ~/.fireworks/auth.ini. A key stays."""
    stored = [found for found in profile.stored_secrets() if everything or _is_meant(session, found)]
    if not stored:
        raise CliError("you are not signed in here", advice=["firectl whoami"])
    if session.dry_run:
        raise DryRun({"forget": [found.section for found in stored], "keys": everything})
    keys = ("api_key",) if everything else ()
    for found in stored:
        told = _told(found.tokens) if found.tokens else ""
        path = profile.save(found.section, {}, without=(*profile.TOKEN_KEYS, *keys))
        who = found.tokens.email if found.tokens else "the key"
        session.output.note(f"Signed out: {who} is not in {path} [{found.section}] any more{told}")
    if session.output.as_json:
        session.output.json({})


def _is_meant(session: Session, found: profile.Secrets) -> bool:
    """Whether these are the tokens of the profile and the server that commands would use now."""
    section = session.profile or profile.DEFAULT_SECTION
    return (
        found.tokens is not None
        and found.section == section
        and found.tokens.token_server == session.connection.base_url
    )


def _told(tokens: profile.Tokens) -> str:
    """Ends the session at the server; what to say when the server could not be told."""
    try:
        sign_out(tokens)
    except CliError as error:
        return f"; the server was not told: {error.message}"
    return ""


def _where(session: Session, account: str | None) -> tuple[str, str]:
    """(server, account) to sign in to; a profile that is named may be a new one."""
    known = session.profile if profile.exists(session.profile) else None
    connection = profile.connection(session.flags, known)
    account_id = (account or connection.account_id).removeprefix("accounts/")
    if not account_id:
        raise CliError("which account do you want to sign in to?", advice=["firectl signin ACCOUNT"])
    server = profile.server_of_key(session.profile)
    if server not in ("", connection.base_url):
        # The profile would name the new server, which would be sent the key once the tokens are gone.
        raise CliError(
            f"the profile holds a key of {server}, and this is {connection.base_url}",
            advice=[f"firectl signin {account_id} --profile NAME"],
        )
    return connection.base_url, account_id


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _in_browser(session: Session, client: ApiClient, request: dict[str, str], port: int) -> dict[str, Any]:
    """The code comes back to this machine, and is worth nothing without the verifier of PKCE."""
    import webbrowser  # these two would cost every command some time

    from cli.connection.loopback import Loopback

    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    with Loopback(port) as loopback:
        body = {**request, "redirectUri": loopback.redirect_uri, "codeChallenge": challenge}
        started = client.call("POST", "auth/signIn:start", body=body)
        state, url = str(started["state"]), _web_address(str(started["authorizationUrl"]))
        loopback.expect(state)
        session.output.note("Sign in in your browser. If none opens, go to:")
        session.output.note(url)
        threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        returned = loopback.wait(_BROWSER_SECONDS)
    if "code" not in returned:
        reason = returned.get("error", "it gave no code")
        raise CliError(f"the identity provider did not sign you in: {reason}", advice=["ask an admin"])
    body = {"state": state, "code": returned["code"], "codeVerifier": verifier}
    return client.call("POST", "auth/signIn:finish", body=body)


def _by_device_code(session: Session, client: ApiClient, request: dict[str, str]) -> dict[str, Any]:
    """A code to type into a browser elsewhere, and asking now and then whether that was done."""
    started = client.call("POST", "auth/device:start", body=request)
    interval, deadline = int(started["interval"]), time.monotonic() + int(started["expiresIn"])
    session.output.note(f"In a browser anywhere, go to {_web_address(str(started['verificationUri']))}")
    session.output.note(f"and enter the code {started['userCode']}")
    if started.get("verificationUriComplete"):
        session.output.note(f"or go to {_web_address(str(started['verificationUriComplete']))}")
    while time.monotonic() < deadline:
        time.sleep(interval)
        try:
            answer = client.call("POST", "auth/device:poll", body={"deviceCode": started["deviceCode"]})
        except CliError as error:
            if not is_outage(error):
                raise
            continue
        if answer.get("state") == "SIGNED_IN":
            tokens: dict[str, Any] = answer["tokens"]
            return tokens
        interval = int(answer.get("interval") or interval)
    raise CliError("nobody entered the code in time", advice=[f"firectl signin {request['account']}"])


def _keep(session: Session, base_url: str, answer: dict[str, Any]) -> None:
    before = profile.tokens(session.profile, base_url)
    tokens = tokens_of(answer, base_url)
    values = {"account_id": str(answer["accountId"]), "base_url": base_url, **asdict(tokens)}
    path = profile.save(session.profile, values)
    if before is not None:
        _end(before)
    session.output.resource({name: answer[name] for name in ("accountId", "userId", "email")})
    session.output.note(f"Signed in; the tokens are in {path}")
    if os.environ.get("FIREWORKS_API_KEY") and not session.profile:
        session.output.note("FIREWORKS_API_KEY is set and wins over the sign-in: unset FIREWORKS_API_KEY")


def _end(before: profile.Tokens) -> None:
    """The session that this one takes the place of. When it cannot be ended now, it ends by itself."""
    try:
        sign_out(before)
    except CliError:
        pass


def _web_address(url: str) -> str:
    """A browser is given nothing else, whatever a server says."""
    if not url.startswith(("https://", "http://")):
        raise CliError("the server named something to open that is no web address")
    return url


def _advice(error: ApiError, account_id: str) -> list[str]:
    if error.code == "UNIMPLEMENTED":
        return [f"firectl signin {account_id} --browser", *_KEY_ADVICE]
    if error.status == 404:
        return ["an admin sets sign-in up: firectl create identity-provider --help", *_KEY_ADVICE]
    if error.status in (400, 401):
        return [f"firectl signin {account_id}", *_KEY_ADVICE]
    return [] if error.status == 403 else [f"try again in a moment: firectl signin {account_id}"]
