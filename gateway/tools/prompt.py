"""How functions, calls and results are shown to a model: by its template, or in words of ours.

- A template that shows tools, in a form that the engine reads: they go to the engine as `tools`.
- A template that has messages of the role `functions`: they become such a message, the first.
- Any other: they are described in the system message, or in the first question where there can be none.

Calls and results of earlier messages are left as they are where the template shows calls; elsewhere they
become text.
"""

from __future__ import annotations

import json
from typing import Any

from controlplane.checks.tool_calls import CallForm
from gateway.tools.grammar import shown_call, shown_calls
from gateway.tools.requested import Calling, Function

Message = dict[str, Any]
Content = str | list[dict[str, Any]] | None

INTRODUCTION = "You can call these functions. Each is given with the JSON Schema of its arguments."
HOW = "To call {which}, answer with nothing but {form}"
SEVERAL = ", or with a JSON list of such calls"
OTHERWISE = "When no call is needed, answer in plain words."


def with_functions(messages: list[Message], calling: Calling | None, form: CallForm) -> dict[str, Any]:
    """The engine's `messages`, and `tools` where its template shows them."""
    if form.parser is None and not form.shows_calls:
        messages = _in_words(messages, form)
    if calling is None:
        return {"messages": messages}
    if form.parser is not None:
        tools = [{"type": "function", "function": _native(each)} for each in calling.functions]
        return {"messages": messages, "tools": tools, "tool_choice": "none" if calling.required else "auto"}
    specs = [each.spec for each in calling.functions]
    if form.functions_role:
        return {"messages": [{"role": "functions", "content": json.dumps(specs, indent=4)}, *messages]}
    return {"messages": _introduced(messages, introduction(calling, form), form)}


def _native(function: Function) -> dict[str, Any]:
    """The engine holds calls of strict functions to their schema, though it is free to make none."""
    return {**function.spec, "strict": True} if function.strict else function.spec


def introduction(calling: Calling, form: CallForm) -> str:
    """What a model is told that has no way of its own to be shown functions."""
    shape = f'{{"name": <its name>, "{form.arguments}": <an object>}}'
    which = calling.only or "one"
    how = HOW.format(which=which, form=shape) + (SEVERAL if calling.parallel else "") + "."
    listed = [json.dumps(each.spec, ensure_ascii=False) for each in calling.functions]
    return "\n".join([INTRODUCTION, *listed, how, *([] if calling.required else [OTHERWISE])])


def _introduced(messages: list[Message], words: str, form: CallForm) -> list[Message]:
    """The words in the system message, before the caller's own, or in the first question."""
    first = messages[0]
    if form.system_role:
        if first["role"] == "system":
            return [_preceded(first, words), *messages[1:]]
        return [{"role": "system", "content": words}, *messages]
    at = next((index for index, each in enumerate(messages) if each["role"] == "user"), 0)
    return [*messages[:at], _preceded(messages[at], words), *messages[at + 1 :]]


def _preceded(message: Message, words: str) -> Message:
    return {**message, "content": _joined(words, message["content"])}


def _joined(first: Content, second: Content) -> Content:
    """One content of two: text where both are, and parts where one of them shows more than text."""
    if _is_text(first) and _is_text(second):
        return "\n\n".join(text for text in (text_of(first), text_of(second)) if text)
    return [*_parts(first), *_parts(second)]


def _is_text(content: Content) -> bool:
    return not isinstance(content, list) or all(part["type"] == "text" for part in content)


def _parts(content: Content) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _in_words(messages: list[Message], form: CallForm) -> list[Message]:
    """Calls as the text that they were, and results as what the user says: any template shows these."""
    names: dict[str, str] = {}
    shown: list[Message] = []
    for message in messages:
        if message.get("tool_calls"):
            names |= {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
            message = _called(message, form)
        elif message["role"] == "tool":
            name = names.get(message["tool_call_id"], "the function")
            content = message["content"]
            told = _parts(f"{name} returned:") + _parts(content)
            message = {
                "role": "user",
                "content": f"{name} returned: {text_of(content)}" if _is_text(content) else told,
            }
            if shown and shown[-1]["role"] == "user":
                message["content"] = _joined(shown.pop()["content"], message["content"])
        shown.append(message)
    return shown


def _called(message: Message, form: CallForm) -> Message:
    calls = [call["function"] for call in message["tool_calls"]]
    text = shown_calls([shown_call(call["name"], call["arguments"], form.arguments) for call in calls])
    own = text_of(message["content"])
    kept = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**kept, "content": f"{own}\n{text}" if own else text}


def text_of(content: Content) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""
