"""Anthropic's messages and content blocks as those of a chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from gateway.checks import boolean, mapping, only, shown, string
from gateway.errors import invalid, unsupported

Chat = dict[str, Any]
Parts = list[dict[str, Any]]

ROLES = ("user", "assistant")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def system_message(value: Any) -> list[Chat]:
    """`system` as the first message of a chat, if it says anything."""
    if isinstance(value, str):
        return [{"role": "system", "content": value}] if value else []
    parts = [_text(field, block) for field, block in _listed("system", value)]
    return [{"role": "system", "content": _simple(parts)}] if parts else []


def chat_messages(value: Any) -> list[Chat]:
    """The turns. Neighbours of one role become one, as they do for the model that they were written for."""
    if not isinstance(value, list) or not value:
        raise invalid("'messages' must be a list of at least one message", "messages")
    chat: list[Chat] = []
    for index, each in enumerate(value):
        for message in _message(f"messages[{index}]", each):
            if chat and message["role"] == chat[-1]["role"] != "tool":
                chat[-1] = _joined(chat[-1], message)
            else:
                chat.append(message)
    return chat


def _message(field: str, value: Any) -> list[Chat]:
    message = mapping(field, value)
    only(field, message, {"role", "content"})
    role = message.get("role")
    if role not in ROLES:
        raise invalid(f"'{field}.role' must be one of {', '.join(ROLES)}, not {shown(role)}", f"{field}.role")
    content = message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    blocks = _listed(f"{field}.content", content)
    return _assistant(blocks) if role == "assistant" else _user(blocks)


def _user(blocks: list[tuple[str, Any]]) -> list[Chat]:
    """Results of tools are messages of their own in a chat, before and after what else is said."""
    chat: list[Chat] = []
    for field, block in blocks:
        kind = _type(field, block)
        if kind == "tool_result":
            chat.append(_result(field, block))
            continue
        part = _reader(field, kind, {"text": _text, "image": _image})(field, block)
        if not chat or chat[-1]["role"] != "user":
            chat.append({"role": "user", "content": []})
        chat[-1]["content"].append(part)
    return [
        {**message, "content": _simple(message["content"])} if message["role"] == "user" else message
        for message in chat
    ]


def _assistant(blocks: list[tuple[str, Any]]) -> list[Chat]:
    texts: Parts = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for field, block in blocks:
        kind = _type(field, block)
        if kind == "text":
            texts.append(_text(field, block))
        elif kind == "thinking":
            thoughts.append(_thought(field, block))
        elif kind == "tool_use":
            calls.append(_call(field, block))
        else:
            raise _refused(field, kind)
    message: Chat = {"role": "assistant", "content": _simple(texts) if texts else None}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _joined(first: Chat, second: Chat) -> Chat:
    joined = {**first, **second}
    parts = _parts(first["content"]) + _parts(second["content"])
    joined["content"] = _simple(parts) if parts else None
    if thoughts := [each["reasoning_content"] for each in (first, second) if "reasoning_content" in each]:
        joined["reasoning_content"] = "\n".join(thoughts)
    if calls := first.get("tool_calls", []) + second.get("tool_calls", []):
        joined["tool_calls"] = calls
    return joined


def _parts(content: Any) -> Parts:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or [])


def _simple(parts: Parts) -> str | Parts:
    """One text is written as such, which every template takes."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _listed(field: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, list) or not value:
        raise invalid(f"'{field}' must be a string or a list of blocks", field)
    return [(f"{field}[{index}]", block) for index, block in enumerate(value)]


def _type(field: str, block: Any) -> Any:
    return mapping(field, block).get("type")


def _reader(
    field: str, kind: Any, readers: Mapping[str, Callable[[str, Any], Any]]
) -> Callable[[str, Any], Any]:
    if kind not in tuple(readers):
        raise _refused(field, kind)
    return readers[kind]


def _refused(field: str, kind: Any) -> Exception:
    if kind in ("document", "redacted_thinking", "search_result", "server_tool_use"):
        return unsupported(f"{field}.type", f"{kind} blocks cannot be read by the model")
    return invalid(f"'{field}.type' is {shown(kind)}, which may not stand here", f"{field}.type")


def _text(field: str, value: Any) -> dict[str, Any]:
    block = mapping(field, value)
    if block.get("type") != "text":
        raise _refused(field, block.get("type"))
    # An answer's block is given back with its empty citations.
    only(field, {**block, "citations": block.get("citations") or None}, {"type", "text", "cache_control"})
    return {"type": "text", "text": string(f"{field}.text", block.get("text"))}


def _image(field: str, value: Any) -> dict[str, Any]:
    only(field, value, {"type", "source", "cache_control"})
    source = mapping(f"{field}.source", value.get("source"))
    if source.get("type") == "url":
        only(f"{field}.source", source, {"type", "url"})
        return _picture(string(f"{field}.source.url", source.get("url")))
    if source.get("type") != "base64":
        kind = shown(source.get("type"))
        raise invalid(f"'{field}.source.type' must be base64 or url, not {kind}", f"{field}.source.type")
    only(f"{field}.source", source, {"type", "media_type", "data"})
    media_type = source.get("media_type")
    if media_type not in IMAGE_TYPES:
        named = ", ".join(IMAGE_TYPES)
        raise invalid(f"'{field}.source.media_type' must be one of {named}", f"{field}.source.media_type")
    return _picture(f"data:{media_type};base64,{string(f'{field}.source.data', source.get('data'))}")


def _picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _thought(field: str, value: Any) -> str:
    """The signature is of no use here: nothing is hidden in it."""
    only(field, value, {"type", "thinking", "signature", "cache_control"})
    return string(f"{field}.thinking", value.get("thinking"))


def _call(field: str, value: Any) -> dict[str, Any]:
    only(field, value, {"type", "id", "name", "input", "cache_control", "caller"})
    arguments = mapping(f"{field}.input", value.get("input"))
    return {
        "id": string(f"{field}.id", value.get("id")),
        "type": "function",
        "function": {
            "name": string(f"{field}.name", value.get("name")),
            "arguments": json.dumps(arguments, ensure_ascii=False),
        },
    }


def _result(field: str, value: Any) -> Chat:
    only(field, value, {"type", "tool_use_id", "content", "is_error", "cache_control"})
    content = value.get("content")
    read: str | Parts = content if isinstance(content, str) else ""
    if content is not None and not isinstance(content, str):
        inner = _listed(f"{field}.content", content)
        readers = {"text": _text, "image": _image}
        read = _simple([_reader(at, _type(at, block), readers)(at, block) for at, block in inner])
    if value.get("is_error") is not None and boolean(f"{field}.is_error", value["is_error"]):
        read = _simple([{"type": "text", "text": "The call failed:"}, *_parts(read)])
    return {
        "role": "tool",
        "tool_call_id": string(f"{field}.tool_use_id", value.get("tool_use_id")),
        "content": read,
    }
