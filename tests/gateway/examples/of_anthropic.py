"""The anthropic package: the same questions in its words."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from tests.gateway.examples.told import Told

REFUSED = anthropic.BadRequestError


class Client:
    def __init__(self, url: str, key: str) -> None:
        self.client = anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key)

    def chat(self, *, stream: bool = False, **asked: Any) -> Told:
        asked = in_its_words(asked)
        if not stream:
            return told_by(self.client.messages.create(**asked))
        with self.client.messages.stream(**asked) as events:
            pieces = sum(event.type == "content_block_delta" for event in events)
            return {**told_by(events.get_final_message()), "pieces": pieces}

    def conversation(self, *, messages: list[Any], result: str, **asked: Any) -> Told:
        asked = in_its_words({**asked, "messages": messages})
        first = self.client.messages.create(**asked)
        reply = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": result}
        asked["messages"] = [
            *asked["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [reply]},
        ]
        last = told_by(self.client.messages.create(**asked))
        return {**last, "calls": told_by(first)["calls"] + last["calls"]}


def in_its_words(asked: dict[str, Any]) -> dict[str, Any]:
    """The temperature is not among what its method takes."""
    made = {**asked, "extra_body": {"temperature": asked["temperature"]}}
    del made["temperature"]
    if "tools" in asked:
        functions = [tool["function"] for tool in asked["tools"]]
        made["tools"] = [{"name": each["name"], "input_schema": each["parameters"]} for each in functions]
    if "tool_choice" in asked:
        made["tool_choice"] = {"type": asked["tool_choice"]}
    return made


def told_by(message: Any) -> Told:
    uses = [block for block in message.content if block.type == "tool_use"]
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "calls": [[use.name, json.dumps(use.input)] for use in uses],
        "finish": {"tool_use": "tool_calls", "end_turn": "stop"}.get(message.stop_reason),
        "usage": message.usage.model_dump(),
        "pieces": 0,
    }
