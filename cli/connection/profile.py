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
DEFAULT_SECTION = "fireworks"
_ENVIRONMENT = {
    "api_key": "FIREWORKS_API_KEY",
    "account_id": "FIREWORKS_ACCOUNT_ID",
    "base_url": "FIREWORKS_BASE_URL",
}
_FLAGS = {"api_key": "--api-key", "account_id": "--account-id", "base_url": "--base-url"}
_REPAIR = ["correct the file, or remove it and type: firectl set-api-key KEY"]
_FILES = ("settings.ini", "auth.ini")  # the later one wins


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

    api_key: str = field(repr=False)
    account_id: str
    base_url: str
    tokens: Tokens | None = None
    """Those of a sign-in, instead of a key."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each of them came from: `--api-key`, `FIREWORKS_API_KEY`, `auth.ini [fireworks]`."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the files, though they can be used."""


@dataclass(frozen=True)
class _Source:
    """Values from one place, and what the place of each is called."""

    values: Mapping[str, str | None]
    places: Mapping[str, str]


def directory() -> Path:
    """The folder of the user's settings."""
    return (Path.home() if os.environ.get("HOME") != "" else _home_by_account()) / ".fireworks"


def _home_by_account() -> Path:
    """Where HOME is empty, which would otherwise be read as the root folder."""
    import pwd

    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def connection(flags: Mapping[str, str | None], profile: str | None) -> Connection:
    """Resolves the connection from flags, environment and files."""
    stored = _stored(profile)
    environment = _Source({key: os.environ.get(name) for key, name in _ENVIRONMENT.items()}, _ENVIRONMENT)
    named = _Source(flags, _FLAGS)
    order = [named, stored, environment] if profile else [named, environment, stored]
    found = {key: _first(key, order) for key in _ENVIRONMENT}
    base_url = (found["base_url"][0] or DEFAULT_BASE_URL).rstrip("/")
    before = order[: order.index(stored)]
    signed_in = (
        None
        if any(source.values.get("api_key") for source in before)
        else _tokens_of(stored.values, base_url)
    )
    return Connection(
        api_key="" if signed_in else found["api_key"][0],
        account_id=found["account_id"][0].removeprefix("accounts/"),
        base_url=base_url,
        tokens=signed_in,
        sources={key: place for key, (_, place) in found.items()}
        | {"tokens": stored.places.get("access_token", "")},
        warnings=_warnings(),
    )


def _first(key: str, order: Sequence[_Source]) -> tuple[str, str]:
    """The first value that is not empty, and where it stands."""
    for source in order:
        if value := (source.values.get(key) or "").strip():
            return value, source.places.get(key, "")
    return "", ""


def tokens(profile: str | None, base_url: str) -> Tokens | None:
    """The tokens that are stored now, if they are this server's."""
    parser = _read(directory() / "auth.ini")
    section = profile or DEFAULT_SECTION
    return _tokens_of(dict(parser.items(section)), base_url) if parser.has_section(section) else None


def _tokens_of(stored: Mapping[str, str | None], base_url: str) -> Tokens | None:
    values = {key: stored.get(key) or "" for key in TOKEN_KEYS}
    is_whole = values["access_token"] and values["refresh_token"]
    return Tokens(**values) if is_whole and values["token_server"] == base_url else None


@dataclass(frozen=True)
class Secrets:
    """What a section of auth.ini holds that opens a server."""

    section: str
    tokens: Tokens | None
    has_key: bool


def stored_secrets() -> list[Secrets]:
    """The sections of auth.ini with tokens or a key."""
    parser = _read(directory() / "auth.ini")
    sections = [(name, dict(parser.items(name))) for name in parser.sections()]
    found = [
        Secrets(name, _tokens_of(values, values.get("token_server", "")), bool(values.get("api_key")))
        for name, values in sections
    ]
    return [secrets for secrets in found if secrets.tokens or secrets.has_key]


def server_of_key(profile: str | None) -> str:
    """The server that the stored key is for; empty when there is no key."""
    stored = _stored(profile).values if profile is None or exists(profile) else {}
    return (stored.get("base_url") or DEFAULT_BASE_URL).rstrip("/") if stored.get("api_key") else ""


def exists(profile: str | None) -> bool:
    """Whether a profile of this name is stored."""
    return profile is not None and any(_read(directory() / name).has_section(profile) for name in _FILES)


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
    section = profile or DEFAULT_SECTION
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


def _stored(profile: str | None) -> _Source:
    section = profile or DEFAULT_SECTION
    values: dict[str, str | None] = {}
    places: dict[str, str] = {}
    known = False
    for name in _FILES:
        parser = _read(directory() / name)
        if parser.has_section(section):
            known = True
            found = dict(parser.items(section))
            values.update(found)
            places.update(dict.fromkeys(found, f"{name} [{section}]"))
    if profile and not known:
        raise CliError(
            f'there is no profile "{profile}" in {directory() / "auth.ini"}',
            advice=[f"firectl set-api-key KEY --profile {profile}"],
        )
    return _Source(values, places)


def _warnings() -> tuple[str, ...]:
    """Files with secrets that others on this machine can read or change."""
    if os.name != "posix":
        return ()  # elsewhere the mode says nothing
    warnings = []
    for path in (directory() / name for name in _FILES):
        try:
            mode = path.stat().st_mode & 0o777
        except OSError:
            continue
        if mode & 0o077 and (path.name == "auth.ini" or mode & 0o022):
            warnings.append(f"{path} is open to others (mode {mode:03o}): chmod 600 {path}")
    return tuple(warnings)


def _read(path: Path) -> configparser.ConfigParser:
    """An ini file whose first lines may stand under no section; those belong to the default profile."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return parser
    except UnicodeDecodeError:
        raise CliError(f"cannot read {path}: it is no text", advice=_REPAIR) from None
    try:
        parser.read_string(f"[{DEFAULT_SECTION}]\n{text}", source=str(path))
    except configparser.Error as error:
        raise CliError(f"cannot read {path}: {_fault(error)}", advice=_REPAIR) from None
    return parser


def _fault(error: configparser.Error) -> str:
    """What is wrong, without quoting the line: it may be the key."""
    lines = [str(line - 1) for line, _ in getattr(error, "errors", ())]  # a section was put before the text
    if not lines:
        return "it is not in the form of ini files"
    return f"line {', '.join(lines)} is neither [SECTION] nor NAME = VALUE"
