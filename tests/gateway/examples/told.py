"""What an answer says, whichever package has read it: {"text", "calls", "finish", "usage", "pieces"}.

`calls` are pairs of a function's name and its arguments as written. `pieces` is how many chunks held text or
a part of a call, 0 where the answer came whole.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

Told = dict[str, Any]


def told(answer: Any) -> Told:
    if isinstance(answer, Iterator):
        return _put_together([_plain(chunk) for chunk in answer])
    return _whole(_plain(answer))


async def told_later(answer: Any) -> Told:
    if isinstance(answer, AsyncIterator):
        return _put_together([_plain(chunk) async for chunk in answer])
    return _whole(_plain(await answer))


def _plain(answer: Any) -> dict[str, Any]:
    """The object of a package as JSON has it."""
    made = answer.model_dump(mode="json") if hasattr(answer, "model_dump") else json.loads(json.dumps(answer))
    assert isinstance(made, dict)
    return made


def _whole(answer: dict[str, Any]) -> Told:
    [choice] = answer["choices"]
    message = choice.get("message") or {"content": choice["text"]}
    calls = [call["function"] for call in message.get("tool_calls") or []]
    calls += [message["function_call"]] if message.get("function_call") else []
    return {
        "text": message.get("content") or "",
        "calls": [[call["name"], call["arguments"]] for call in calls],
        "finish": choice["finish_reason"],
        "usage": answer["usage"],
        "pieces": 0,
    }


def _put_together(chunks: list[dict[str, Any]]) -> Told:
    made: Told = {"text": "", "calls": [], "finish": None, "usage": None, "pieces": 0}
    for chunk in chunks:
        made["usage"] = chunk.get("usage") or made["usage"]
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {"content": choice.get("text")}
            made["finish"] = choice.get("finish_reason") or made["finish"]
            made["text"] += delta.get("content") or ""
            for part in delta.get("tool_calls") or []:
                _add(made["calls"], part)
            made["pieces"] += bool(delta.get("content") or delta.get("tool_calls"))
    return made


def _add(calls: list[list[str]], part: dict[str, Any]) -> None:
    """The first part of a call has its id and name, the others have neither."""
    is_first = part["index"] == len(calls)
    assert bool(part.get("id")) == bool(part["function"].get("name")) == is_first, part
    if is_first:
        calls.append([part["function"]["name"], ""])
    calls[part["index"]][1] += part["function"].get("arguments") or ""


def conversation(
    create: Callable[..., Any],
    messages: list[Any],
    result: str,
    *,
    with_id: bool = True,
    with_tools: bool = True,
    **asked: Any,
) -> Told:
    """Asks, answers the call with `result` and asks again: what was called, and what is said in the end.

    `with_id`: the result names its call; otherwise the call is written down anew and the result names none.
    `with_tools`: the second request has the tools too.
    """
    answer = create(messages=messages, **asked)
    message = answer.choices[0].message
    [call] = message.tool_calls
    reply = {"role": "tool", "content": result}
    if with_id:
        turns = [message, {**reply, "tool_call_id": call.id}]
    else:
        turns = [{"role": message.role, "content": "", "tool_calls": [_plain(call)]}, reply]
    if not with_tools:
        del asked["tools"], asked["tool_choice"]
    last = told(create(messages=[*messages, *turns], **asked))
    return {**last, "calls": told(answer)["calls"] + last["calls"]}
