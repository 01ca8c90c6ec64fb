"""Where the key, the account and the server's address come from.

A command-line flag wins over the environment, which wins over `~/.fireworks/auth.ini` (`settings.ini` beside
it is read for what auth.ini lacks). A profile named on the command line wins over the environment too:
who names one means it. In a profile the tokens of a sign-in win over a key, at the server that gave them.
"""

import configparser
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import CliError

DEFAULT_BASE_URL = "http://127.0.0.1:8600"
_DEFAULT_SECTION = "fireworks"
_ENVIRONMENT = {
    "api_key": "FIREWORKS_API_KEY",
    "account_id": "FIREWORKS_ACCOUNT_ID",
    "base_url": "FIREWORKS_BASE_URL",
}


@dataclass(frozen=True)
class Tokens:
    """What a sign-in gave, under these names in auth.ini too. They are for no server but `token_server`."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expire_time: str
    token_server: str
    email: str


TOKEN_KEYS = tuple(Tokens.__dataclass_fields__)


@dataclass(frozen=True)
class Connection:
    """What is needed to talk to one server as one user; empty strings where nothing is known."""

    api_key: str
    account_id: str
    base_url: str
    tokens: Tokens | None = None
    """Those of a sign-in, instead of a key."""


def directory() -> Path:
    """The folder of the user's settings."""
    return Path.home() / ".fireworks"


def connection(flags: Mapping[str, str | None], profile: str | None) -> Connection:
    """Resolves the connection from flags, environment and files."""
    stored = _stored(profile)
    environment = {key: os.environ.get(name) for key, name in _ENVIRONMENT.items()}
    order = [flags, stored, environment] if profile else [flags, environment, stored]
    found = {key: next((s[key] for s in order if s.get(key)), "") or "" for key in _ENVIRONMENT}
    base_url = (found["base_url"].strip() or DEFAULT_BASE_URL).rstrip("/")
    before = order[: next(place for place, source in enumerate(order) if source is stored)]
    signed_in = None if any(source.get("api_key") for source in before) else _tokens_of(stored, base_url)
    return Connection(
        api_key="" if signed_in else found["api_key"].strip(),
        account_id=found["account_id"].strip().removeprefix("accounts/"),
        base_url=base_url,
        tokens=signed_in,
    )


def tokens(profile: str | None, base_url: str) -> Tokens | None:
    """The tokens that are stored now, if they are this server's."""
    parser = _read(directory() / "auth.ini")
    section = profile or _DEFAULT_SECTION
    return _tokens_of(dict(parser.items(section)), base_url) if parser.has_section(section) else None


def _tokens_of(stored: Mapping[str, str | None], base_url: str) -> Tokens | None:
    values = {key: stored.get(key) or "" for key in TOKEN_KEYS}
    is_whole = values["access_token"] and values["refresh_token"]
    return Tokens(**values) if is_whole and values["token_server"] == base_url else None


def server_of_key(profile: str | None) -> str:
    """The server that the stored key is for; empty when there is no key."""
    stored = _stored(profile) if profile is None or exists(profile) else {}
    return (stored.get("base_url") or DEFAULT_BASE_URL).rstrip("/") if stored.get("api_key") else ""


def exists(profile: str | None) -> bool:
    """Whether a profile of this name is stored."""
    return profile is not None and any(
        _read(directory() / name).has_section(profile) for name in ("settings.ini", "auth.ini")
    )


@contextmanager
def locked() -> Iterator[None]:
    """Nobody else changes auth.ini meanwhile: another firectl waits."""
    try:
        import fcntl
    except ImportError:  # Windows; there two that renew at the same moment may end the sign-in
        yield
        return
    directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory() / ".auth.ini.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def save(profile: str | None, values: Mapping[str, str], without: Sequence[str] = ()) -> Path:
    """Writes values to auth.ini, removes others, and keeps what else stands there."""
    with locked():
        return write(profile, values, without)


def write(profile: str | None, values: Mapping[str, str], without: Sequence[str] = ()) -> Path:
    """The same by somebody who holds the lock. The file is readable by the user only."""
    path = directory() / "auth.ini"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parser = _read(path)
    section = profile or _DEFAULT_SECTION
    if not parser.has_section(section):
        parser.add_section(section)
    for key, value in values.items():
        parser.set(section, key, value)
    for key in without:
        parser.remove_option(section, key)
    temporary = path.with_name(f".auth.ini.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        parser.write(stream)
    temporary.replace(path)
    return path


def _stored(profile: str | None) -> dict[str, str | None]:
    section = profile or _DEFAULT_SECTION
    values: dict[str, str | None] = {}
    known = False
    for name in ("settings.ini", "auth.ini"):
        parser = _read(directory() / name)
        if parser.has_section(section):
            known = True
            values.update(parser.items(section))
    if profile and not known:
        raise CliError(
            f'there is no profile "{profile}" in {directory() / "auth.ini"}',
            advice=[f"firectl set-api-key KEY --profile {profile}"],
        )
    return values


def _read(path: Path) -> configparser.ConfigParser:
    """An ini file whose first lines may stand under no section; those belong to the default profile."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        text = path.read_text()
    except FileNotFoundError:
        return parser
    try:
        parser.read_string(f"[{_DEFAULT_SECTION}]\n{text}", source=str(path))
    except configparser.Error as error:
        reason = str(error).replace("\n", " ")
        raise CliError(f"cannot read {path}: {reason}", advice=["firectl set-api-key KEY"]) from None
    return parser
