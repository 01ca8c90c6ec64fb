from __future__ import annotations

import re

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.encryption import Cipher
from controlplane.errors import invalid
from controlplane.names import ResourceName, parse_name
from controlplane.resources.secrets.schemas import LARGEST_VALUE, Secret
from controlplane.resources.secrets.tables import SecretRow
from controlplane.rest.access import find, insert
from controlplane.rest.etags import refuse_other_version
from controlplane.rest.masks import changes

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


async def create_secret(session: AsyncSession, cipher: Cipher, account_id: str, body: Secret) -> SecretRow:
    body.refuse_unsupported()
    name = named(body, account_id)
    row = SecretRow(
        account_id=account_id,
        id=name.id,
        key_name=checked_key_name(body.key_name),
        encrypted_value=encrypted(cipher, body.value),
    )
    await insert(session, row, str(name))
    return row


async def update_secret(
    session: AsyncSession, cipher: Cipher, name: ResourceName, body: Secret, mask: str
) -> SecretRow:
    row = await find(session, SecretRow, name, lock=True)
    if "name" in body.model_fields_set and named(body, name.account_id) != name:
        raise invalid("name cannot be changed", "name")
    if not body.value.get_secret_value() and (
        "value" in body.model_fields_set or "value" in map(str.strip, mask.split(","))
    ):
        raise invalid("value must not be empty; delete the secret instead", "value")
    body.name = str(name)
    changed = changes(session, body, mask, Secret.of(row))
    if "key_name" in changed:
        row.key_name = checked_key_name(changed["key_name"])
    if "value" in changed:
        row.encrypted_value = encrypted(cipher, changed["value"])
    return row


async def delete_secret(session: AsyncSession, name: ResourceName) -> None:
    row = await find(session, SecretRow, name, lock=True)
    refuse_other_version(session, Secret.of(row))
    await session.delete(row)


def named(body: Secret, account_id: str) -> ResourceName:
    """The name that a body gives; secrets live in the account of the path only."""
    if not body.name:
        raise invalid("name is required: the secret's id, or accounts/{account}/secrets/{id}", "name")
    name = parse_name(body.name, "secrets", account_id, "name")
    if name.account_id != account_id:
        raise invalid(f"name {body.name!r} is not in accounts/{account_id}", "name")
    return name


def checked_key_name(key_name: str) -> str:
    if not key_name:
        raise invalid("keyName is required, such as WANDB_API_KEY", "keyName")
    if CONTROL_CHARACTER.search(key_name):
        raise invalid("keyName must be one line of text", "keyName")
    return key_name


def encrypted(cipher: Cipher, value: SecretStr) -> str:
    """The value as it is stored. What is wrong with one is said without it."""
    text = value.get_secret_value()
    size = len(text.encode())
    if not text:
        raise invalid("value is required, and must not be empty", "value")
    if size > LARGEST_VALUE:
        raise invalid(f"value has {size} bytes, and at most {LARGEST_VALUE} are kept", "value")
    return cipher.encrypt(text)
