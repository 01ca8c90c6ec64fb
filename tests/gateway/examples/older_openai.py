"""The openai package as it was before 1.0: the module is the client."""

from __future__ import annotations

from typing import Any

import openai

from tests.gateway.examples.told import Told, conversation, told, told_later

assert openai.VERSION.startswith("0.")
REFUSED = openai.error.InvalidRequestError
BY_ENVIRONMENT = (openai.api_base, openai.api_key)


class Client:
    def __init__(self, url: str, key: str) -> None:
        self.settings = (url, key)
        openai.api_base, openai.api_key = self.settings

    def chat(self, **asked: Any) -> Told:
        return told(openai.ChatCompletion.create(**asked))

    def chat_by_environment(self, **asked: Any) -> Told:
        openai.api_base, openai.api_key = BY_ENVIRONMENT
        answer = self.chat(**asked)
        openai.api_base, openai.api_key = self.settings
        return answer

    def chat_by_request(self, **asked: Any) -> Told:
        openai.api_base, openai.api_key = "http://127.0.0.1:1", "of another service"
        answer = self.chat(api_base=self.settings[0], api_key=self.settings[1], **asked)
        openai.api_base, openai.api_key = self.settings
        return answer

    async def chat_later(self, **asked: Any) -> Told:
        answer = openai.ChatCompletion.acreate(**asked)
        return await told_later(await answer if asked.get("stream") else answer)

    def completion(self, **asked: Any) -> Told:
        return told(openai.Completion.create(**asked))

    async def completion_later(self, **asked: Any) -> Told:
        answer = openai.Completion.acreate(**asked)
        return await told_later(await answer if asked.get("stream") else answer)

    def conversation(self, **asked: Any) -> Told:
        return conversation(openai.ChatCompletion.create, **asked)

    def embedding(self, **asked: Any) -> list[list[float]]:
        return [each["embedding"] for each in openai.Embedding.create(**asked)["data"]]
