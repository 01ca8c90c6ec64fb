"""Resource names and ids: `accounts/{account}/{collection}/{id}`."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

ID_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class InvalidName(ValueError):
    """An id or a resource name that cannot exist."""


class ResourceName(NamedTuple):
    account_id: str
    collection: str
    id: str

    def __str__(self) -> str:
        return f"accounts/{self.account_id}/{self.collection}/{self.id}"


def check_id(value: str, field: str) -> str:
    """Return the id, or say what is wrong with it.

    An id is 1 to 63 characters of a-z, 0-9 and hyphen, with no hyphen at either end.
    """
    if not value:
        raise InvalidName(f"{field} must be at least 1 character long")
    if len(value) > 63:
        raise InvalidName(f"{field} must be at most 63 characters long, and this has {len(value)}")
    if not ID_PATTERN.fullmatch(value):
        raise InvalidName(
            f"{field} {value!r} must contain only lower-case letters, digits and hyphens, "
            "and neither start nor end with a hyphen"
        )
    return value


def parse_name(value: str, collection: str, account_id: str, field: str) -> ResourceName:
    """Read a full resource name, or a bare id as one of `account_id`'s own."""
    parts = value.split("/")
    if len(parts) == 1:
        return ResourceName(account_id, collection, check_id(value, field))
    if len(parts) == 4 and parts[0] == "accounts" and parts[2] == collection:
        return ResourceName(check_id(parts[1], field), collection, check_id(parts[3], field))
    raise InvalidName(f"{field} {value!r} must be an id or accounts/{{account}}/{collection}/{{id}}")


def generate_id(length: int = 8) -> str:
    """A random id of `length` hexadecimal characters."""
    return secrets.token_hex((length + 1) // 2)[:length]


def id_from_email(email: str) -> str:
    """The user id that an e-mail address suggests: `John.Doe@x.org` → `john-doe`."""
    local = email.split("@", 1)[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", local).strip("-")[:54].strip("-") or "user"
