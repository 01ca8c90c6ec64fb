"""The output items of a response as they grow, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from gateway.responses.items import Item, new_id

Event = dict[str, Any]


class Output:
    """One item is open at a time, and done before the next begins."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._open: Any = None
        """What is open: `message`, `reasoning`, or the index of a call."""

    def take(self, delta: dict[str, Any]) -> Iterator[Event]:
        """The events for a chat's delta, or for its whole message."""
        if thought := delta.get("reasoning_content"):
            yield from self._into_text("reasoning", thought)
        if text := delta.get("content"):
            yield from self._into_text("message", text)
        for order, call in enumerate(delta.get("tool_calls") or []):
            yield from self._into_call(call.get("index", order), call)

    def close(self, status: str = "completed") -> Iterator[Event]:
        """The events that end the open item."""
        if self._open is None:
            return
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "function_call":
            yield self._of(item, "response.function_call_arguments.done", arguments=item["arguments"])
        else:
            yield from self._close_text(item)
        yield {**self._place(), "type": "response.output_item.done", "item": deepcopy(item)}
        self._open = None

    def cut_off(self) -> None:
        """The last item is not all that there would have been."""
        if self.items:
            self.items[-1]["status"] = "incomplete"

    def _into_text(self, kind: str, text: str) -> Iterator[Event]:
        if self._open != kind:
            yield from self.close()
            yield from self._begin(kind, _empty(kind))
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            if kind == "reasoning":
                part = {"type": "reasoning_text", "text": ""}
            self.items[-1]["content"].append(part)
            yield self._of(self.items[-1], "response.content_part.added", content_index=0, part=dict(part))
        item = self.items[-1]
        item["content"][0]["text"] += text
        if kind == "reasoning":
            yield self._of(item, "response.reasoning_text.delta", content_index=0, delta=text)
        else:
            yield self._of(item, "response.output_text.delta", content_index=0, delta=text, logprobs=[])

    def _close_text(self, item: Item) -> Iterator[Event]:
        part = item["content"][0]
        if item["type"] == "reasoning":
            yield self._of(item, "response.reasoning_text.done", content_index=0, text=part["text"])
        else:
            yield self._of(item, "response.output_text.done", content_index=0, text=part["text"], logprobs=[])
        yield self._of(item, "response.content_part.done", content_index=0, part=dict(part))

    def _into_call(self, index: int, call: dict[str, Any]) -> Iterator[Event]:
        function = call["function"]
        if self._open != index:
            yield from self.close()
            item = {**_empty("function_call"), "call_id": call["id"], "name": function["name"]}
            yield from self._begin(index, item)
        if arguments := function.get("arguments"):
            item = self.items[-1]
            item["arguments"] += arguments
            yield self._of(item, "response.function_call_arguments.delta", delta=arguments)

    def _begin(self, what: Any, item: Item) -> Iterator[Event]:
        self._open = what
        self.items.append(item)
        yield {**self._place(), "type": "response.output_item.added", "item": deepcopy(item)}

    def _place(self) -> dict[str, int]:
        return {"output_index": len(self.items) - 1}

    def _of(self, item: Item, kind: str, **more: Any) -> Event:
        return {"type": kind, "item_id": item["id"], **self._place(), **more}


def _empty(kind: str) -> Item:
    item: Item = {"id": new_id(kind), "type": kind, "status": "in_progress"}
    if kind == "message":
        return {**item, "role": "assistant", "content": []}
    if kind == "reasoning":
        return {**item, "summary": [], "content": []}
    return {**item, "call_id": "", "name": "", "arguments": ""}
