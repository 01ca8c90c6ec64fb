"""The openai package as it is since 1.0."""

from __future__ import annotations

from typing import Any

import openai
from pydantic import BaseModel, Field

from tests.gateway.examples.told import Told, conversation, told, told_later

REFUSED = openai.BadRequestError


class Weather(BaseModel):
    """The weather in a city."""

    city: str = Field(description="Its name alone")


class Client:
    def __init__(self, url: str, key: str) -> None:
        self.settings = {"base_url": url, "api_key": key}
        self.client = openai.OpenAI(**self.settings)

    def chat(self, **asked: Any) -> Told:
        return told(self.client.chat.completions.create(**asked))

    def chat_by_environment(self, **asked: Any) -> Told:
        return told(openai.OpenAI().chat.completions.create(**asked))

    def chat_with_a_type(self, **asked: Any) -> Told:
        return self.chat(tools=[openai.pydantic_function_tool(Weather, name="get_weather")], **asked)

    def chat_into_a_type(self, **asked: Any) -> Told:
        form = {"type": "json_object", "schema": Weather.model_json_schema()}
        answer = self.chat(response_format=form, **asked)
        Weather.model_validate_json(answer["text"])
        return answer

    async def chat_later(self, **asked: Any) -> Told:
        async with openai.AsyncOpenAI(**self.settings) as client:
            return await told_later(await client.chat.completions.create(**asked))

    def completion(self, **asked: Any) -> Told:
        return told(self.client.completions.create(**asked))

    async def completion_later(self, **asked: Any) -> Told:
        async with openai.AsyncOpenAI(**self.settings) as client:
            return await told_later(await client.completions.create(**asked))

    def conversation(self, **asked: Any) -> Told:
        return conversation(self.client.chat.completions.create, **asked)

    def embedding(self, **asked: Any) -> list[list[float]]:
        return [each.embedding for each in self.client.embeddings.create(**asked).data]
