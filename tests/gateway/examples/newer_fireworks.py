"""The fireworks-ai package as it is since 1.0."""

from __future__ import annotations

from typing import Any

from fireworks import AsyncFireworks, BadRequestError, Fireworks

from tests.gateway.examples.told import Told, conversation, told, told_later

REFUSED = BadRequestError


class Client:
    def __init__(self, url: str, key: str) -> None:
        self.settings = {"base_url": url.removesuffix("/inference/v1"), "api_key": key}
        self.client = Fireworks(**self.settings)

    def chat(self, **asked: Any) -> Told:
        return told(self.client.chat.completions.create(**asked))

    async def chat_later(self, **asked: Any) -> Told:
        async with AsyncFireworks(**self.settings) as client:
            return await told_later(await client.chat.completions.create(**asked))

    def completion(self, **asked: Any) -> Told:
        return told(self.client.completions.create(**asked))

    async def completion_later(self, **asked: Any) -> Told:
        async with AsyncFireworks(**self.settings) as client:
            return await told_later(await client.completions.create(**asked))

    def conversation(self, **asked: Any) -> Told:
        return conversation(self.client.chat.completions.create, **asked)
