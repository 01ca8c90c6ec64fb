"""Chat messages: checked, and put into the words that the engine reads."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.checks import NOT_JSON, mapping, only, shown, string
from gateway.errors import invalid
from gateway.media.parts import read_part

ROLES = ("system", "user", "assistant", "tool", "function", "functions")
PLAIN_ROLES = ("user", "assistant", "system")
PLAIN_FIELDS = {"role", "content"}
MEDIA = ("image_url", "input_audio", "video_url")
MESSAGE_FIELDS = {
    "role",
    "content",
    "reasoning_content",
    "tool_calls",
    "tool_call_id",
    "name",
    "function_call",
}


def check_messages(field: str, value: Any) -> list[dict[str, Any]]:
    """The messages, with the older `function_call` and role `function` as tool calls and their results."""
    if not isinstance(value, list) or not value:
        raise invalid(f"'{field}' must be a list of at least one message", field)
    checked = [_message(f"{field}[{index}]", message) for index, message in enumerate(value)]
    _name_results(field, checked)
    return checked


def take_functions(
    field: str, messages: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """The messages without the one of the role `functions`, and what it lists; None where there is none."""
    found = [(index, message) for index, message in enumerate(messages) if message["role"] == "functions"]
    if not found:
        return messages, None
    index, message = found[0]
    if len(found) > 1:
        raise invalid(f"'{field}[{found[1][0]}]' is another message of the role functions", field)
    rest = [each for each in messages if each is not message]
    if not rest:
        raise invalid(f"'{field}' must hold a message besides the one of the role functions", field)
    return rest, _listed(f"{field}[{index}].content", message["content"])


def _listed(field: str, content: Any) -> list[Any]:
    try:
        listed = msgspec.json.decode(content) if isinstance(content, str) else None
    except NOT_JSON:
        listed = None
    if not isinstance(listed, list) or not listed:
        raise invalid(f"'{field}' must be the JSON text of a list of functions", field)
    return listed


def _message(field: str, value: Any) -> dict[str, Any]:
    if _is_plain(value):
        return dict(value)
    message = {name: inner for name, inner in mapping(field, value).items() if inner is not None}
    role = message.get("role")
    if role not in ROLES:
        raise invalid(f"'{field}.role' must be one of {', '.join(ROLES)}, not {shown(role)}", f"{field}.role")
    only(field, message, MESSAGE_FIELDS)
    for name in ("name", "tool_call_id", "reasoning_content"):
        if name in message:
            string(f"{field}.{name}", message[name])
    if not message.get("tool_calls", True):
        del message["tool_calls"]  # as an answer's empty list is given back
    if "tool_calls" in message:
        message["tool_calls"] = _tool_calls(f"{field}.tool_calls", message["tool_calls"])
    if "function_call" in message:
        message["tool_calls"] = [_older_call(f"{field}.function_call", message.pop("function_call"))]
    if "tool_calls" in message and role != "assistant":
        raise invalid(f"'{field}.tool_calls' belongs to messages of the role assistant", field)
    if role == "function":
        message["role"] = "tool"
    if (
        role == "assistant"
        and not {"tool_calls", "reasoning_content"} & message.keys()
        and "content" in value
    ):
        message.setdefault("content", "")  # null, as an answer that was cut off before its first word has it
    message["content"] = _content(f"{field}.content", message)
    return message


def _is_plain(value: Any) -> bool:
    """Whether a message is of one of those kinds that nothing has to be asked of, as most are."""
    if type(value) is not dict or value.keys() != PLAIN_FIELDS:
        return False
    return type(value["content"]) is str and value["role"] in PLAIN_ROLES


def _name_results(field: str, messages: list[dict[str, Any]]) -> None:
    """Give every call an id of its own, and every result the id of a call: the one it names, or the next."""
    waiting: list[str] = []
    for index, message in enumerate(messages):
        calls = message.get("tool_calls", [])
        for order, call in enumerate(calls):
            call["id"] = call["id"] or f"call{index:04d}{order % 10}"
        if calls:
            waiting = [call["id"] for call in calls]
        if message["role"] != "tool":
            continue
        wanted = message.get("tool_call_id")
        if wanted is None and not waiting:
            raise invalid(
                f"'{field}[{index}].tool_call_id' is required in a message of the role tool",
                f"{field}[{index}]",
            )
        message["tool_call_id"] = wanted = wanted if wanted is not None else waiting[0]
        waiting = [each for each in waiting if each != wanted]


def _content(field: str, message: dict[str, Any]) -> str | list[dict[str, Any]] | None:
    """Text, or a list of parts. Only an assistant that called tools may have none."""
    content = message.get("content")
    if content is None:
        if message["role"] != "assistant" or not {"tool_calls", "reasoning_content"} & message.keys():
            raise invalid(f"'{field}' is required", field)
        return None
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise invalid(f"'{field}' must be a string or a list of parts", field)
    return [_part(f"{field}[{index}]", part, message["role"]) for index, part in enumerate(content)]


def _part(field: str, value: Any, role: str) -> dict[str, Any]:
    part = mapping(field, value)
    if part.get("type") in MEDIA:
        return read_part(field, part, role)
    if part.get("type") != "text":
        named = ", ".join(("text", *MEDIA))
        raise invalid(
            f"'{field}.type' must be one of {named}, not {shown(part.get('type'))}", f"{field}.type"
        )
    only(field, part, {"type", "text"})
    return {"type": "text", "text": string(f"{field}.text", part.get("text"))}


def _tool_calls(field: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise invalid(f"'{field}' must be a list of tool calls", field)
    return [_tool_call(f"{field}[{index}]", call) for index, call in enumerate(value)]


def _tool_call(field: str, value: Any) -> dict[str, Any]:
    call = mapping(field, value)
    only(field, call, {"id", "type", "function", "index"})
    return _call(f"{field}.function", call.get("function"), string(f"{field}.id", call.get("id") or ""))


def _older_call(field: str, value: Any) -> dict[str, Any]:
    return _call(field, value, "")


def _call(field: str, value: Any, call_id: str) -> dict[str, Any]:
    function = mapping(field, value)
    only(field, function, {"name", "arguments"})
    return {
        "id": call_id,
        "type": "function",
        "function": {
            "name": string(f"{field}.name", function.get("name")),
            "arguments": _arguments(f"{field}.arguments", function.get("arguments")),
        },
    }


def _arguments(field: str, value: Any) -> str:
    """The JSON text of an object: templates are given the object itself."""
    text = string(field, value) or "{}"
    try:
        read = msgspec.json.decode(text)
    except NOT_JSON:
        read = None
    if not isinstance(read, dict):
        raise invalid(f"'{field}' must be the JSON text of an object, not {shown(value)}", field)
    return text
