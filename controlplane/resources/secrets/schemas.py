from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from controlplane.resources.secrets.tables import SecretRow
from controlplane.rest.schema import ApiModel, write_only

LARGEST_VALUE = 64 * 1024
"""Bytes of UTF-8."""


class Secret(ApiModel):
    name: Annotated[str, Field(description="accounts/{account}/secrets/{id}, or the id alone.")] = ""
    key_name: Annotated[str, Field(max_length=255, description="What the value is called.")] = ""
    value: SecretStr = write_only(description="At most 64 KiB. It is never returned.")
    _version: str = PrivateAttr("")

    @property
    def hidden_version(self) -> str:
        """Changes with the value, so that the ETag does."""
        return self._version

    @classmethod
    def of(cls, row: SecretRow) -> Self:
        secret = cls(name=f"accounts/{row.account_id}/secrets/{row.id}", key_name=row.key_name)
        secret._version = row.update_time.isoformat()
        return secret


class CreateSecretRequest(Secret):
    @model_validator(mode="before")
    @classmethod
    def take_wrapped(cls, sent: Any) -> Any:
        """Some clients send `{"secret": {...}}`."""
        if isinstance(sent, dict) and sent.keys() == {"secret"} and isinstance(sent["secret"], dict):
            return sent["secret"]
        return sent
