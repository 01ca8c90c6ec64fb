"""A request in the shape of responses, translated into a chat: what holds for chats holds for it, too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.checks.tool_calls import PLAIN_TEMPLATE, CallForm
from gateway.checks import mapping, only, shown, string
from gateway.dialect import EngineRequest, given, translate_chat
from gateway.errors import GatewayError, invalid, unsupported
from gateway.parameters import Fate
from gateway.responses.items import Item, chat_messages, read_items
from gateway.responses.parameters import KNOWN
from gateway.words import in_words

SAME = (
    "stream",
    "parallel_tool_calls",
    "prompt_cache_isolation_key",
    "user",
    "prompt_cache_key",
    "service_tier",
)
METADATA = 16
FUNCTION = ("name", "description", "parameters", "strict")
# What the chat's own words for a field are here.
WORDS = (
    (re.compile(r"\b(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"\bresponse_format\.json_schema\b"), "text.format"),
    (re.compile(r"\bresponse_format\b"), "text.format"),
    (re.compile(r"\breasoning_effort\b"), "reasoning.effort"),
    (re.compile(r"\bmax_tokens\b"), "max_output_tokens"),
    (re.compile(r"\bmessages(?=[\[']|$)"), "input"),
)


def translate_response(
    sent: Mapping[str, Any],
    context_length: int,
    cache_scope: str | None = None,
    form: CallForm = PLAIN_TEMPLATE,
    history: Sequence[Item] = (),
) -> EngineRequest:
    """A request as the engine reads it, after the items of `history`; 400 naming the field otherwise."""
    chat = as_chat(sent, history)
    try:
        return translate_chat(chat, context_length, cache_scope, form)
    except GatewayError as error:
        raise in_words(error, WORDS) from None


def as_chat(sent: Mapping[str, Any], history: Sequence[Item]) -> dict[str, Any]:
    fields = given(sent, KNOWN)
    for name, value in fields.items():
        if (check := KNOWN[name].check) is not None:
            check(name, value)
    _refuse(fields)
    chat: dict[str, Any] = {name: fields[name] for name in SAME if name in fields}
    chat |= {name: value for name, value in fields.items() if KNOWN[name].fate is Fate.PASSED}
    first = [{"role": "system", "content": fields["instructions"]}] if fields.get("instructions") else []
    chat["messages"] = first + chat_messages([*history, *read_items(fields.get("input"))])
    if "max_output_tokens" in fields:
        chat["max_tokens"] = fields["max_output_tokens"]
    if "tools" in fields:
        chat["tools"] = _tools(fields["tools"])
    if "tool_choice" in fields:
        chat["tool_choice"] = _tool_choice(fields["tool_choice"])
    if "text" in fields:
        chat |= _text(fields["text"])
    if "reasoning" in fields:
        chat |= _reasoning(fields["reasoning"])
    return chat


def _refuse(fields: Mapping[str, Any]) -> None:
    if fields.get("truncation") == "auto":
        raise unsupported("truncation", "auto; shorten the input")
    if len(fields.get("metadata", {})) > METADATA:
        raise invalid(f"'metadata' may hold {METADATA} texts at most", "metadata")


def _tools(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise invalid("'tools' must be a list of tools", "tools")
    return [_tool(f"tools[{index}]", each) for index, each in enumerate(value)]


def _tool(field: str, value: Any) -> dict[str, Any]:
    tool = mapping(field, value)
    kind = tool.get("type")
    if kind != "function":
        raise unsupported(f"{field}.type", f"{shown(kind)} is no tool of the caller's own, which is function")
    only(field, tool, {"type", *FUNCTION})
    function = {name: tool[name] for name in FUNCTION if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _tool_choice(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("auto", "none", "required"):
            wanted = "auto, none, required or a function"
            raise invalid(f"'tool_choice' must be {wanted}, not {shown(value)}", "tool_choice")
        return value
    choice = mapping("tool_choice", value)
    if choice.get("type") != "function":
        raise unsupported("tool_choice.type", f"{shown(choice.get('type'))}; it must be function")
    only("tool_choice", choice, {"type", "name"})
    return {"type": "function", "function": {"name": string("tool_choice.name", choice.get("name"))}}


def _text(value: Any) -> dict[str, Any]:
    text = mapping("text", value)
    only("text", text, {"format", "verbosity"})
    if text.get("verbosity") is not None:
        raise unsupported("text.verbosity", "say it in the instructions")
    wanted = mapping("text.format", text.get("format") or {"type": "text"})
    if wanted.get("type") == "json_schema":
        inner = {name: each for name, each in wanted.items() if name != "type"}
        return {"response_format": {"type": "json_schema", "json_schema": inner}}
    if wanted.get("type") not in ("text", "json_object"):
        kind = shown(wanted.get("type"))
        raise invalid(
            f"'text.format.type' must be text, json_object or json_schema, not {kind}", "text.format"
        )
    return {"response_format": wanted}


def _reasoning(value: Any) -> dict[str, Any]:
    reasoning = mapping("reasoning", value)
    only("reasoning", reasoning, {"effort", "summary", "generate_summary"})
    for name in ("summary", "generate_summary"):
        if reasoning.get(name) is not None:
            raise unsupported(f"reasoning.{name}", "the model's reasoning is answered as it is")
    return {} if reasoning.get("effort") is None else {"reasoning_effort": reasoning["effort"]}
