"""Chat messages, tools and response formats: checked, and put into the words that the engine reads."""

from __future__ import annotations

import re
from typing import Any

from gateway.checks import boolean, json_schema, mapping, only, shown, string
from gateway.errors import GatewayError, invalid, unsupported

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_FIELDS = {"role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"}
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
FORMATS = ("text", "grammar", "json_schema", "json_object")


def check_messages(field: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise invalid(f"'{field}' must be a list of at least one message", field)
    return [_message(f"{field}[{index}]", message) for index, message in enumerate(value)]


def _message(field: str, value: Any) -> dict[str, Any]:
    message = {name: inner for name, inner in mapping(field, value).items() if inner is not None}
    role = message.get("role")
    if role == "function" or "function_call" in message:
        raise unsupported(field, "use tool_calls and messages of the role tool instead of function calls")
    if role not in ROLES:
        raise invalid(f"'{field}.role' must be one of {', '.join(ROLES)}, not {shown(role)}", f"{field}.role")
    only(field, message, MESSAGE_FIELDS)
    for name in ("name", "tool_call_id", "reasoning_content"):
        if name in message:
            string(f"{field}.{name}", message[name])
    if "tool_calls" in message:
        message["tool_calls"] = _tool_calls(f"{field}.tool_calls", message["tool_calls"])
    if role == "tool" and "tool_call_id" not in message:
        raise invalid(f"'{field}.tool_call_id' is required in a message of the role tool", field)
    message["content"] = _content(f"{field}.content", message)
    return message


def _content(field: str, message: dict[str, Any]) -> str | list[dict[str, str]] | None:
    """Text, or a list of text parts. Only an assistant that called tools may have none."""
    content = message.get("content")
    if content is None:
        if message["role"] != "assistant" or not {"tool_calls", "reasoning_content"} & message.keys():
            raise invalid(f"'{field}' is required", field)
        return None
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise invalid(f"'{field}' must be a string or a list of parts", field)
    return [_part(f"{field}[{index}]", part) for index, part in enumerate(content)]


def _part(field: str, value: Any) -> dict[str, str]:
    part = mapping(field, value)
    if part.get("type") in ("image_url", "video_url"):
        raise unsupported(f"{field}.type", f"{part['type']} input")
    if part.get("type") != "text":
        raise invalid(f"'{field}.type' must be text, not {shown(part.get('type'))}", f"{field}.type")
    only(field, part, {"type", "text"})
    return {"type": "text", "text": string(f"{field}.text", part.get("text"))}


def _tool_calls(field: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise invalid(f"'{field}' must be a list of at least one tool call", field)
    return [_tool_call(f"{field}[{index}]", call) for index, call in enumerate(value)]


def _tool_call(field: str, value: Any) -> dict[str, Any]:
    call = mapping(field, value)
    only(field, call, {"id", "type", "function", "index"})
    function = mapping(f"{field}.function", call.get("function"))
    only(f"{field}.function", function, {"name", "arguments"})
    return {
        "id": string(f"{field}.id", call.get("id")),
        "type": "function",
        "function": {
            "name": string(f"{field}.function.name", function.get("name")),
            "arguments": string(f"{field}.function.arguments", function.get("arguments")),
        },
    }


def check_tools(field: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise invalid(f"'{field}' must be a list of tools", field)
    return [_tool(f"{field}[{index}]", tool) for index, tool in enumerate(value)]


def _tool(field: str, value: Any) -> dict[str, Any]:
    tool = mapping(field, value)
    only(field, tool, {"type", "function"})
    if tool.get("type", "function") != "function":
        raise invalid(f"'{field}.type' must be function, not {shown(tool['type'])}", f"{field}.type")
    return {"type": "function", "function": _function(f"{field}.function", tool.get("function"))}


def _function(field: str, value: Any) -> dict[str, Any]:
    function = mapping(field, value)
    only(field, function, {"name", "description", "parameters", "strict"})
    name = string(f"{field}.name", function.get("name"))
    if not FUNCTION_NAME.fullmatch(name):
        raise invalid(f"'{field}.name' must be 1 to 64 of a-z, A-Z, 0-9, _ and -", f"{field}.name")
    kept = {key: inner for key, inner in function.items() if inner is not None}
    if "parameters" in kept:
        mapping(f"{field}.parameters", kept["parameters"])
    if "strict" in kept:
        boolean(f"{field}.strict", kept["strict"])
    return kept


def check_functions(field: str, value: Any) -> list[dict[str, Any]]:
    """The deprecated `functions`, as tools."""
    if not isinstance(value, list):
        raise invalid(f"'{field}' must be a list of functions", field)
    return [
        {"type": "function", "function": _function(f"{field}[{index}]", function)}
        for index, function in enumerate(value)
    ]


def check_tool_choice(field: str, value: Any) -> str | dict[str, Any]:
    """`any` is another word for `required`, and so is a choice of type function that names none."""
    if isinstance(value, str):
        if value not in ("auto", "none", "any", "required"):
            raise invalid(
                f"'{field}' must be auto, none, any, required or a function, not {shown(value)}", field
            )
        return "required" if value == "any" else value
    choice = mapping(field, value)
    only(field, choice, {"type", "function", "name"})
    if choice.get("type") != "function":
        raise invalid(f"'{field}.type' must be function, not {shown(choice.get('type'))}", f"{field}.type")
    function = mapping(f"{field}.function", choice.get("function") or {})
    only(f"{field}.function", function, {"name"})
    name = function.get("name", choice.get("name"))
    if name is None:
        return "required"
    return {"type": "function", "function": {"name": string(f"{field}.function.name", name)}}


def check_function_call(field: str, value: Any) -> str | dict[str, Any]:
    """The deprecated `function_call`, as a tool choice."""
    if isinstance(value, str):
        return check_tool_choice(field, value)
    return check_tool_choice(field, {"type": "function", "function": mapping(field, value)})


def response_format(field: str, value: Any) -> dict[str, Any]:
    """The engine's fields for a response format: `response_format`, `structured_outputs` or none."""
    wanted = mapping(field, value)
    kind = wanted.get("type")
    if kind not in FORMATS:
        raise _wrong_format(field, kind)
    if kind == "text":
        only(field, wanted, {"type"})
        return {}
    if kind == "grammar":
        only(field, wanted, {"type", "grammar"})
        return {"structured_outputs": {"grammar": string(f"{field}.grammar", wanted.get("grammar"))}}
    if kind == "json_object":
        only(field, wanted, {"type", "schema"})
        if wanted.get("schema") is None:
            return {"response_format": {"type": "json_object"}}
        return _schema_format("response", json_schema(f"{field}.schema", wanted["schema"]))
    only(field, wanted, {"type", "json_schema"})
    inner = mapping(f"{field}.json_schema", wanted.get("json_schema"))
    only(f"{field}.json_schema", inner, {"name", "schema", "strict", "description"})
    name = string(f"{field}.json_schema.name", inner.get("name") or "response")
    return _schema_format(name, json_schema(f"{field}.json_schema.schema", inner.get("schema")))


def _schema_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}}


def _wrong_format(field: str, kind: object) -> GatewayError:
    return invalid(f"Invalid format type: {kind}. Must be one of: {', '.join(FORMATS)}", field)
