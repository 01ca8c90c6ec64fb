"""Where the key, the account and the server's address come from.

A command-line flag wins over the environment, which wins over `~/.fireworks/auth.ini` (`settings.ini` beside
it is read for what auth.ini lacks). A profile named on the command line wins over the environment too:
who names one means it.
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
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
class Connection:
    """What is needed to talk to one server as one user; empty strings where nothing is known."""

    api_key: str
    account_id: str
    base_url: str


def directory() -> Path:
    """The folder of the user's settings."""
    return Path.home() / ".fireworks"


def connection(flags: Mapping[str, str | None], profile: str | None) -> Connection:
    """Resolves the connection from flags, environment and files."""
    stored = _stored(profile)
    environment = {key: os.environ.get(name) for key, name in _ENVIRONMENT.items()}
    order = [flags, stored, environment] if profile else [flags, environment, stored]
    found = {key: next((s[key] for s in order if s.get(key)), "") or "" for key in _ENVIRONMENT}
    return Connection(
        api_key=found["api_key"].strip(),
        account_id=found["account_id"].strip().removeprefix("accounts/"),
        base_url=(found["base_url"].strip() or DEFAULT_BASE_URL).rstrip("/"),
    )


def exists(profile: str | None) -> bool:
    """Whether a profile of this name is stored."""
    return profile is not None and any(
        _read(directory() / name).has_section(profile) for name in ("settings.ini", "auth.ini")
    )


def save(profile: str | None, values: Mapping[str, str]) -> Path:
    """Writes values to auth.ini, readable by the user only, and keeps what else stands there."""
    path = directory() / "auth.ini"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parser = _read(path)
    section = profile or _DEFAULT_SECTION
    if not parser.has_section(section):
        parser.add_section(section)
    for key, value in values.items():
        parser.set(section, key, value)
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
