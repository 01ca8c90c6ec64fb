"""`fireworks-ai` on accounts, users, API keys and secrets: every method, sync and async, and its errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from fireworks import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    Fireworks,
    NotFoundError,
    PermissionDeniedError,
)
from pydantic import SecretStr

SEVERAL = 7


@pytest.fixture
def settings(settings):
    """Secrets need a key to be encrypted with."""
    return settings.model_copy(update={"secret_keys": SecretStr(Fernet.generate_key().decode())})


def with_key(base_url: str, key: str) -> Fireworks:
    return Fireworks(api_key=key, account_id="hearth", base_url=base_url, max_retries=0)


def test_accounts_are_listed_and_read(client):
    (account,) = client.accounts.list()
    assert account.name == "accounts/hearth"
    assert client.accounts.get(account_id="hearth").state == "READY"
    with pytest.raises(NotFoundError):
        client.accounts.get(account_id="rival")


async def test_accounts_are_listed_and_read_async(async_client):
    names = [account.name async for account in async_client.accounts.list()]
    assert names == ["accounts/hearth"]
    assert (await async_client.accounts.get(account_id="hearth")).name == "accounts/hearth"


def test_a_user_is_created_read_found_changed_and_guarded(client):
    made = client.users.create(user_id="ada", email="ada@x.org", role="contributor", display_name="Ada")
    assert (made.name, made.role) == ("accounts/hearth/users/ada", "contributor")
    assert client.users.get("ada").email == "ada@x.org"
    assert client.users.update("ada", role="user", display_name="Countess").display_name == "Countess"
    found = client.users.list(filter='role = "user" AND email:"x.org"', order_by="email desc")
    assert [user.name for user in found] == [made.name]
    with pytest.raises(ConflictError):
        client.users.create(user_id="ada", email="other@x.org", role="user")
    with pytest.raises(BadRequestError, match="none of"):
        client.users.create(user_id="bob", email="bob@x.org", role="emperor")
    with pytest.raises(NotFoundError):
        client.users.get("nobody")


def test_users_are_paged_through(client):
    for number in range(SEVERAL):
        client.users.create(user_id=f"u{number}", email=f"u{number}@x.org", role="user")
    page = client.users.list(page_size=2, filter="role = user")
    assert [user.name.rsplit("/", 1)[1] for user in page] == [f"u{number}" for number in range(SEVERAL)]


async def test_a_user_is_created_read_and_changed_async(async_client):
    await async_client.users.create(user_id="ada", email="ada@x.org", role="user")
    assert (await async_client.users.update("ada", role="inference-user")).role == "inference-user"
    assert (await async_client.users.get("ada")).role == "inference-user"
    names = [user.name async for user in async_client.users.list(page_size=1)]
    assert names == ["accounts/hearth/users/ada", "accounts/hearth/users/admin"]


def test_a_key_works_until_it_is_deleted(client, base_url):
    client.users.create(user_id="ada", email="ada@x.org", role="inference-user")
    made = client.api_keys.create("ada", api_key={"display_name": "laptop"})
    theirs = with_key(base_url, made.key)
    assert theirs.users.get("ada").name == "accounts/hearth/users/ada"
    with pytest.raises(PermissionDeniedError):
        theirs.datasets.create(dataset_id="data", dataset={})
    assert [key.display_name for key in client.api_keys.list("ada")] == ["laptop"]
    client.api_keys.delete("ada", key_id=made.key_id)
    with pytest.raises(AuthenticationError):
        theirs.users.get("ada")
    assert list(client.api_keys.list("ada")) == []


async def test_a_key_is_created_listed_and_deleted_async(async_client):
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = await async_client.api_keys.create("admin", api_key={"expire_time": soon})
    assert made.expire_time == soon
    listed = [key.key_id async for key in async_client.api_keys.list("admin")]
    assert made.key_id in listed
    await async_client.api_keys.delete("admin", key_id=made.key_id)
    assert made.key_id not in [key.key_id async for key in async_client.api_keys.list("admin")]


def test_a_secret_is_kept_and_never_shown(client):
    made = client.secrets.create(name="accounts/hearth/secrets/wandb", key_name="WANDB", value="hidden-1")
    assert made.name == "accounts/hearth/secrets/wandb"
    client.secrets.update("wandb", key_name="WANDB_API_KEY", value="hidden-2")
    read = client.secrets.get("wandb")
    assert read.key_name == "WANDB_API_KEY"
    (listed,) = client.secrets.list(filter='key_name = "WANDB*"')
    assert "hidden" not in f"{made}{read}{listed}"
    with pytest.raises(ConflictError):
        client.secrets.create(name="accounts/hearth/secrets/wandb", key_name="X", value="y")
    client.secrets.delete("wandb")
    with pytest.raises(NotFoundError):
        client.secrets.get("wandb")


async def test_a_secret_is_kept_async(async_client):
    await async_client.secrets.create(name="accounts/hearth/secrets/a", key_name="A", value="hidden")
    await async_client.secrets.update("a", key_name="B", value="hidden")
    assert (await async_client.secrets.get("a")).key_name == "B"
    assert [secret.key_name async for secret in async_client.secrets.list()] == ["B"]
    await async_client.secrets.delete("a")
    assert [secret async for secret in async_client.secrets.list()] == []


def test_what_a_key_cannot_open_is_an_authentication_error(base_url):
    with pytest.raises(AuthenticationError):
        with_key(base_url, "fw_garbage").users.list()
