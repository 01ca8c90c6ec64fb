"""A request in Anthropic's shape, translated into a chat: what holds for chats holds for it, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from controlplane.checks.tool_calls import PLAIN_TEMPLATE, CallForm
from gateway.checks import boolean, mapping, only, shown, string
from gateway.dialect import EngineRequest, given, translate_chat
from gateway.errors import GatewayError, invalid, unsupported
from gateway.messages.blocks import chat_messages, system_message
from gateway.messages.parameters import KNOWN
from gateway.parameters import Fate
from gateway.words import in_words

SAME = ("max_tokens", "stream", "thinking", "raw_output", "prompt_cache_isolation_key")
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# What the chat's own words for a field are here.
WORDS = (
    (re.compile(r"\b(tools\[\d+\])\.function\.parameters\b"), r"\1.input_schema"),
    (re.compile(r"\b(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"\bresponse_format\.json_schema\b"), "output_config.format"),
    (re.compile(r"\bresponse_format\b"), "output_config.format"),
    (re.compile(r"\breasoning_effort\b"), "output_config.effort"),
)


def translate_messages(
    sent: Mapping[str, Any],
    context_length: int,
    cache_scope: str | None = None,
    form: CallForm = PLAIN_TEMPLATE,
) -> EngineRequest:
    """A request as the engine reads it; 400 naming the field otherwise."""
    chat = as_chat(sent)
    if not form.efforts and chat.get("thinking") == {"type": "disabled"}:
        del chat["thinking"]  # which a model does that cannot think
    try:
        request = translate_chat(chat, context_length, cache_scope, form)
    except GatewayError as error:
        raise in_words(error, WORDS) from None
    last = chat["messages"][-1]
    if last["role"] == "assistant" and last["content"]:
        # The answer goes on with the words that are there.
        request.body.update(add_generation_prompt=False, continue_final_message=True)
    return request


def as_chat(sent: Mapping[str, Any]) -> dict[str, Any]:
    fields = given(sent, KNOWN)
    for name, value in fields.items():
        if (check := KNOWN[name].check) is not None:
            check(name, value)
    chat: dict[str, Any] = {name: fields[name] for name in SAME if name in fields}
    chat |= {name: value for name, value in fields.items() if KNOWN[name].fate is Fate.PASSED}
    chat["messages"] = system_message(fields.get("system", "")) + chat_messages(fields.get("messages"))
    if fields.get("stop_sequences"):
        chat["stop"] = fields["stop_sequences"]
    if "tools" in fields:
        chat["tools"] = _tools(fields["tools"])
    if "tool_choice" in fields:
        chat |= _tool_choice(fields["tool_choice"])
    if "output_config" in fields:
        chat |= _output_config(fields["output_config"])
    if "metadata" in fields:
        chat |= _metadata(fields["metadata"])
    return chat


def _tools(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise invalid("'tools' must be a list of tools", "tools")
    return [_tool(f"tools[{index}]", each) for index, each in enumerate(value)]


def _tool(field: str, value: Any) -> dict[str, Any]:
    tool = mapping(field, value)
    kind = tool.get("type", "custom")
    if kind not in ("custom", None):
        raise unsupported(f"{field}.type", f"{shown(kind)} is no tool of the caller's own, which is custom")
    only(field, tool, {"type", "name", "description", "input_schema", "strict", "cache_control"})
    function = {name: tool.get(name) for name in ("name", "description", "strict")}
    function["parameters"] = mapping(f"{field}.input_schema", tool.get("input_schema"))
    return {"type": "function", "function": function}


def _tool_choice(value: Any) -> dict[str, Any]:
    choice = mapping("tool_choice", value)
    only("tool_choice", choice, {"type", "name", "disable_parallel_tool_use"})
    kind = choice.get("type")
    asked: dict[str, Any] = {}
    if choice.get("disable_parallel_tool_use") is not None:
        field = "tool_choice.disable_parallel_tool_use"
        asked["parallel_tool_calls"] = not boolean(field, choice["disable_parallel_tool_use"])
    if kind == "tool":
        name = string("tool_choice.name", choice.get("name"))
        return {**asked, "tool_choice": {"type": "function", "function": {"name": name}}}
    if kind not in tuple(CHOICES):
        raise invalid(f"'tool_choice.type' must be auto, any, tool or none, not {shown(kind)}", "tool_choice")
    return {**asked, "tool_choice": CHOICES[kind]}


def _output_config(value: Any) -> dict[str, Any]:
    config = mapping("output_config", value)
    only("output_config", config, {"effort", "format"})
    asked: dict[str, Any] = {}
    if config.get("effort") is not None:
        asked["reasoning_effort"] = config["effort"]
    if config.get("format") is not None:
        wanted = mapping("output_config.format", config["format"])
        only("output_config.format", wanted, {"type", "schema"})
        if wanted.get("type") != "json_schema":
            kind = shown(wanted.get("type"))
            raise invalid(
                f"'output_config.format.type' must be json_schema, not {kind}", "output_config.format"
            )
        schema = {"name": "answer", "schema": wanted.get("schema")}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    return asked


def _metadata(value: Any) -> dict[str, Any]:
    metadata = mapping("metadata", value)
    only("metadata", metadata, {"user_id"})
    user = metadata.get("user_id")
    return {} if user is None else {"user": string("metadata.user_id", user)}
