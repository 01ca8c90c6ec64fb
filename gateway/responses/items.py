"""The items of a conversation as the messages of a chat, and in the form in which they are stored."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from gateway.checks import mapping, only, shown, string
from gateway.errors import invalid, unsupported

Item = dict[str, Any]
Chat = dict[str, Any]

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
STATUSES = ("in_progress", "completed", "incomplete")


def new_id(kind: str) -> str:
    return f"{PREFIXES[kind]}_{secrets.token_hex(16)}"


def read_items(value: Any) -> list[Item]:
    """`input` as items, each with an id; 400 naming what is wrong."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise invalid("'input' must be a string or a list of at least one item", "input")
    return [_item(f"input[{index}]", each) for index, each in enumerate(value)]


def chat_messages(items: Iterable[Item]) -> list[Chat]:
    """What an assistant said, thought and called in a row is one message of a chat."""
    chat: list[Chat] = []
    for item in items:
        said = _SAID[item["type"]](item)
        if said["role"] == "assistant" and chat and chat[-1]["role"] == "assistant":
            _add(chat[-1], said)
        else:
            chat.append(said)
    return chat


def _add(message: Chat, said: Chat) -> None:
    for name in ("content", "reasoning_content"):
        if said.get(name):
            message[name] = f"{message[name]}\n{said[name]}" if message.get(name) else said[name]
    if calls := said.get("tool_calls"):
        message["tool_calls"] = message.get("tool_calls", []) + calls


def _item(field: str, value: Any) -> Item:
    item = {name: inner for name, inner in mapping(field, value).items() if inner is not None}
    kind = item.get("type", "message")
    if kind not in tuple(_READ):
        if isinstance(kind, str) and kind.endswith(("_call", "_output")):
            raise unsupported(f"{field}.type", f"{kind} is of a tool that does not run here")
        raise invalid(f"'{field}.type' must be one of {', '.join(_READ)}, not {shown(kind)}", f"{field}.type")
    if item.get("status", "completed") not in STATUSES:
        raise invalid(f"'{field}.status' must be one of {', '.join(STATUSES)}", f"{field}.status")
    given = string(f"{field}.id", item.get("id", ""))
    return {"id": given or new_id(kind), "type": kind, **_READ[kind](field, item)}


def _message(field: str, item: Item) -> Item:
    only(field, item, {"type", "id", "role", "content", "status", "phase"})
    role = item.get("role")
    if role not in tuple(ROLES):
        raise invalid(f"'{field}.role' must be one of {', '.join(ROLES)}, not {shown(role)}", f"{field}.role")
    plain = "output_text" if role == "assistant" else "input_text"
    parts = _parts(f"{field}.content", item.get("content"), plain)
    if role == "assistant" and any(part["type"] not in TEXTS for part in parts):
        raise invalid(
            f"'{field}.content' must be text in a message of the role assistant", f"{field}.content"
        )
    return {"role": role, "status": "completed", "content": parts}


def _parts(field: str, content: Any, plain: str) -> list[Item]:
    if isinstance(content, str):
        return [_text_part(plain, content)]
    if not isinstance(content, list) or not content:
        raise invalid(f"'{field}' must be a string or a list of parts", field)
    return [_part(f"{field}[{index}]", part) for index, part in enumerate(content)]


def _part(field: str, value: Any) -> Item:
    part = mapping(field, value)
    kind = part.get("type")
    if kind in tuple(TEXTS):
        member = TEXTS[kind]
        only(field, part, {"type", member, "annotations", "logprobs"})
        return _text_part(kind, string(f"{field}.{member}", part.get(member)))
    if kind == "input_image":
        only(field, part, {"type", "image_url", "detail"})
        return {"type": kind, "image_url": string(f"{field}.image_url", part.get("image_url"))}
    if kind in ("input_file", "input_audio"):
        raise unsupported(f"{field}.type", f"{kind} cannot be read by the model")
    named = ", ".join([*TEXTS, "input_image"])
    raise invalid(f"'{field}.type' must be one of {named}, not {shown(kind)}", f"{field}.type")


def _text_part(kind: str, text: str) -> Item:
    part = {"type": kind, TEXTS[kind]: text}
    return {**part, "annotations": []} if kind == "output_text" else part


def _call(field: str, item: Item) -> Item:
    only(field, item, {"type", "id", "call_id", "name", "arguments", "status", "caller", "namespace"})
    names = ("call_id", "name", "arguments")
    return {name: string(f"{field}.{name}", item.get(name)) for name in names} | {"status": "completed"}


def _output(field: str, item: Item) -> Item:
    only(field, item, {"type", "id", "call_id", "output", "status", "caller"})
    output = item.get("output")
    read = output if isinstance(output, str) else _parts(f"{field}.output", output, "input_text")
    call_id = string(f"{field}.call_id", item.get("call_id"))
    return {"call_id": call_id, "output": read, "status": "completed"}


def _reasoning(field: str, item: Item) -> Item:
    only(field, item, {"type", "id", "summary", "content", "encrypted_content", "status"})
    if item.get("encrypted_content"):
        raise unsupported(f"{field}.encrypted_content", "nothing is encrypted here")
    if item.get("summary"):
        raise unsupported(f"{field}.summary", "the model reads what it thought as content")
    content = item.get("content", [])
    if not isinstance(content, list):
        raise invalid(f"'{field}.content' must be a list of parts", f"{field}.content")
    parts = [mapping(f"{field}.content[{at}]", each) for at, each in enumerate(content)]
    texts = [string(f"{field}.content[{at}].text", each.get("text")) for at, each in enumerate(parts)]
    return {"summary": [], "content": [{"type": "reasoning_text", "text": text} for text in texts]}


_READ = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "reasoning": _reasoning,
}


def _said_message(item: Item) -> Chat:
    role = ROLES[item["role"]]
    texts = [part[TEXTS[part["type"]]] for part in item["content"] if part["type"] in TEXTS]
    if role == "assistant":
        return {"role": role, "content": "\n".join(texts)}
    return {"role": role, "content": _chat_content(item["content"])}


def _chat_content(parts: list[Item]) -> Any:
    read = [
        {"type": "text", "text": part[TEXTS[part["type"]]]}
        if part["type"] in TEXTS
        else {"type": "image_url", "image_url": {"url": part["image_url"]}}
        for part in parts
    ]
    return read[0]["text"] if len(read) == 1 and read[0]["type"] == "text" else read


def _said_call(item: Item) -> Chat:
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _said_output(item: Item) -> Chat:
    output = item["output"]
    content = output if isinstance(output, str) else _chat_content(output)
    return {"role": "tool", "tool_call_id": item["call_id"], "content": content}


def _said_reasoning(item: Item) -> Chat:
    text = "\n".join(part["text"] for part in item.get("content") or [])
    return {"role": "assistant", "content": None, "reasoning_content": text}


_SAID = {
    "message": _said_message,
    "function_call": _said_call,
    "function_call_output": _said_output,
    "reasoning": _said_reasoning,
}
