"""The tokens of a sign-in, renewed in time; several firectl at once share them without spending one twice."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.connection import profile
from cli.connection.client import ApiClient, is_outage
from cli.connection.profile import Connection, Tokens
from cli.errors import ApiError, CliError

# A request that takes long must not find its token expired on the way.
_MARGIN = timedelta(seconds=60)


class SignedIn:
    """Gives the access token to use now."""

    def __init__(self, profile_name: str | None, tokens: Tokens, connection: Connection) -> None:
        self._profile = profile_name
        self._tokens = tokens
        self._connection = connection

    def token(self, refused: str = "") -> str:
        """An access token that has not run out, and is another one than the `refused`."""
        if not self._is_good(self._tokens, refused):
            with profile.locked():
                self._tokens = self._renewed(refused)
        return self._tokens.access_token

    def _renewed(self, refused: str) -> Tokens:
        """What another firectl has stored meanwhile, or new ones from the server, which are then stored."""
        stored = profile.tokens(self._profile, self._connection.base_url)
        if stored is None:
            raise self._signed_out("somebody has signed out")
        if self._is_good(stored, refused):
            return stored
        try:
            answer = renew(stored)
        except CliError as error:
            if isinstance(error, ApiError) and error.status == 401:
                profile.write(self._profile, {}, without=profile.TOKEN_KEYS)
                raise self._signed_out(error.message) from None
            if is_outage(error) and not refused and not _has_expired(stored):
                return stored  # good for some more seconds
            raise
        fresh = tokens_of(answer, stored.token_server)
        profile.write(self._profile, asdict(fresh))
        return fresh

    def _is_good(self, tokens: Tokens, refused: str) -> bool:
        return tokens.access_token != refused and not _has_expired(tokens, _MARGIN)

    def _signed_out(self, reason: str) -> CliError:
        account = self._connection.account_id or "ACCOUNT"
        return CliError(f"you are not signed in any more: {reason}", advice=[f"firectl signin {account}"])


def tokens_of(answer: Mapping[str, Any], base_url: str) -> Tokens:
    """The tokens of the server's answer."""
    return Tokens(
        access_token=str(answer["accessToken"]),
        refresh_token=str(answer["refreshToken"]),
        expire_time=str(answer.get("expireTime") or ""),
        token_server=base_url,
        email=str(answer.get("email") or ""),
    )


def renew(tokens: Tokens) -> dict[str, Any]:
    return anonymous(tokens.token_server).call(
        "POST", "auth/refresh", body={"refreshToken": tokens.refresh_token}
    )


def sign_out(tokens: Tokens) -> None:
    anonymous(tokens.token_server).call("POST", "auth/signOut", body={"refreshToken": tokens.refresh_token})


def anonymous(base_url: str) -> ApiClient:
    """A client without a key: what it sends speaks for itself."""
    return ApiClient(Connection("", "", base_url))


def _has_expired(tokens: Tokens, margin: timedelta = timedelta()) -> bool:
    try:
        return datetime.fromisoformat(tokens.expire_time) <= datetime.now(UTC) + margin
    except (ValueError, TypeError):
        return True
