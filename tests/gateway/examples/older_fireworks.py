"""The fireworks-ai package as it was before 1.0. Where it asks comes from the environment."""

from __future__ import annotations

from typing import Any

import fireworks.client
import fireworks.client.error
from fireworks.client import AsyncFireworks, Fireworks

from tests.gateway.examples.told import Told, conversation, told, told_later

REFUSED = fireworks.client.error.InvalidRequestError
assert fireworks.client.__version__.startswith("0.")


class Client:
    def __init__(self, url: str, key: str) -> None:
        assert fireworks.client.base_url == url
        self.key = key
        self.client = Fireworks(api_key=key)

    def chat(self, **asked: Any) -> Told:
        return told(self.client.chat.completions.create(**asked))

    def chat_of_the_module(self, **asked: Any) -> Told:
        fireworks.client.api_key = self.key
        return told(fireworks.client.ChatCompletion.create(**asked))

    async def chat_later(self, **asked: Any) -> Told:
        return await told_later(AsyncFireworks(api_key=self.key).chat.completions.acreate(**asked))

    def completion(self, **asked: Any) -> Told:
        return told(self.client.completion.create(**asked))

    def completion_of_the_module(self, **asked: Any) -> Told:
        fireworks.client.api_key = self.key
        return told(fireworks.client.Completion.create(**asked))

    async def completion_later(self, **asked: Any) -> Told:
        return await told_later(AsyncFireworks(api_key=self.key).completion.acreate(**asked))

    def conversation(self, **asked: Any) -> Told:
        return conversation(self.client.chat.completions.create, **asked)

    def embedding(self, **asked: Any) -> list[list[float]]:
        return [each.embedding for each in self.client.embeddings.create(**asked).data]
