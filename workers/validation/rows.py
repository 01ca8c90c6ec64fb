"""What a row of a fine-tuning dataset must look like: a chat, or a flat object of fields for templates.

Each check returns what it counted on the way, or raises `BadRow` with a reason that names the place.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from controlplane.checks.wording import shown
from workers.validation.jsonl import BadRow

MAX_FIELDS = 256
MAX_FIELD_NAME = 128
TOKENS_PER_MESSAGE = 4
"""Role and turn markers that a chat template puts around each message."""

ROLES = ("user", "assistant", "system", "tool")
_MESSAGE_KEYS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "weight", "name"}),
    "user": frozenset({"role", "content", "weight", "name"}),
    "assistant": frozenset({"role", "content", "weight", "name", "tool_calls", "reasoning_content"}),
    "tool": frozenset({"role", "content", "weight", "name", "tool_call_id"}),
}


_OTHER_ROLES = {
    "developer": "write it as a system message",
    "function": "write results of calls as messages of role tool",
    "human": "write it as user",
    "gpt": "write it as assistant",
    "model": "write it as assistant",
}
"""What other formats say, and what is said here."""


class RowCounts(NamedTuple):
    tokens: int
    turns: int
    """User messages: a turn is what a user says and all that answers it."""


def check_chat_row(row: dict[str, Any]) -> RowCounts:
    """A row with `messages` (and perhaps `tools`); other keys are the owner's own and not looked at."""
    messages = list_of_messages(row)
    tokens, turns, last = check_messages(messages)
    if last != "assistant":
        raise BadRow(
            f'messages[{len(messages) - 1}].role is "{last}"; the last message must be from the assistant'
        )
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        raise BadRow("nothing to train on: the weight of every assistant message is 0")
    return RowCounts(tokens + check_tools(row), turns)


def list_of_messages(row: dict[str, Any]) -> list[Any]:
    messages = row.get("messages")
    if type(messages) is not list:
        raise BadRow(
            "messages is missing"
            if "messages" not in row
            else f"messages must be an array, found {shown(messages)}"
        )
    if not messages:
        raise BadRow("messages is empty")
    return messages


def check_messages(messages: list[Any]) -> tuple[int, int, str]:
    """Every message, in its turn; returns (estimated tokens, user messages, the last role)."""
    tokens = turns = 0
    order = _TurnOrder()
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise BadRow(f"messages[{index}] must be an object, found {shown(message)}")
        role = order.take(index, message)
        tokens += TOKENS_PER_MESSAGE + check_message(index, role, message)
        turns += role == "user"
    return tokens, turns, order.last


def check_text_row(row: dict[str, Any]) -> RowCounts:
    """A flat row whose fields fill templates: strings, numbers, booleans and nulls, at least one string."""
    if not row:
        raise BadRow("the object has no fields")
    if type(row.get("conversations")) is list:
        raise BadRow("conversations is not read; write messages, each with a role and a content")
    if len(row) > MAX_FIELDS:
        raise BadRow(f"the object has {len(row)} fields; at most {MAX_FIELDS} are allowed")
    tokens = 0
    strings = False
    for name, value in row.items():
        _check_field_name(name)
        if type(value) is str:
            strings = strings or value != ""
            tokens += estimate_tokens(value)
        elif type(value) is dict or type(value) is list:
            raise BadRow(f"{name} is {shown(value)}; a field must be a string, number, boolean or null")
        else:
            tokens += 1
    if not strings:
        raise BadRow("no field holds text; at least one must be a string that is not empty")
    return RowCounts(tokens, 0)


def estimate_tokens(text: str) -> int:
    """Tokens of a text by rule of thumb: a token for four ASCII characters, and for three bytes of any other.

    Byte-pair vocabularies hold whole English words but only pieces of most other scripts.
    """
    if text.isascii():
        return (len(text) + 3) // 4
    ascii_bytes = len(text.encode("ascii", "ignore"))
    return (ascii_bytes + 3) // 4 + (len(text.encode()) - ascii_bytes + 2) // 3


class _TurnOrder:
    """An optional system message, then user and assistant in turn; tool answers follow the calls."""

    def __init__(self) -> None:
        self._expected: tuple[str, ...] = ("user", "system")
        self._call_ids: set[str] | None = None
        self.last = ""

    def take(self, index: int, message: dict[str, Any]) -> str:
        """The message's role, when it may stand here."""
        role: Any = message.get("role")
        if type(role) is not str or role not in self._expected:
            raise BadRow(self._complaint(index, role, message))
        self.last = role
        if role == "user":
            self._expected = ("assistant",)
        elif role == "assistant":
            calls = message.get("tool_calls")
            self._call_ids = _call_ids(calls) if calls else None
            self._expected = ("tool",) if calls else ("user",)
        elif role == "tool":
            self._check_answer(index, message.get("tool_call_id"))
            self._expected = ("assistant", "tool")
        else:
            self._expected = ("user",)
        return role

    def _check_answer(self, index: int, call_id: Any) -> None:
        if type(call_id) is str and self._call_ids and call_id not in self._call_ids:
            raise BadRow(
                f"messages[{index}].tool_call_id {shown(call_id)} answers none of the calls before it"
            )

    def _complaint(self, index: int, role: Any, message: dict[str, Any]) -> str:
        place = f"messages[{index}].role"
        if "role" not in message:
            return f"{place} is missing"
        if type(role) is str and role in _OTHER_ROLES:
            return f'{place} is "{role}"; {_OTHER_ROLES[role]}'
        if type(role) is not str or role not in ROLES:
            return f"{place} is {shown(role)}; expected user, assistant, system or tool"
        if role == "system":
            return f'{place} is "system"; only the first message may be a system message'
        if role == "tool":
            return f'{place} is "tool"; a tool message must follow an assistant message with tool_calls'
        return f'{place} is "{role}"; expected {" or ".join(e for e in self._expected if e != "system")} here'


def check_message(index: int, role: str, message: dict[str, Any]) -> int:
    """Check all but the role; returns the estimated tokens."""
    content = message.get("content")
    calls = message.get("tool_calls")
    if type(content) is str:
        tokens = estimate_tokens(content)
    elif content is None and role == "assistant" and calls:
        tokens = 0
    elif "function_call" in message:
        raise BadRow(f"messages[{index}] has a function_call, which is out of use; write tool_calls")
    elif "content" not in message:
        raise BadRow(f"messages[{index}].content is missing")
    elif type(content) is list and content and all(type(part) is dict for part in content):
        kinds = sorted({str(part.get("type")) for part in content})
        raise BadRow(
            f"messages[{index}].content is an array of parts ({shown(', '.join(kinds))}); "
            "training reads text only: give one string"
        )
    else:
        raise BadRow(f"messages[{index}].content must be a string, found {shown(content)}")
    if len(message) == 2:
        return tokens
    return tokens + _check_optional(index, role, message)


def _check_optional(index: int, role: str, message: dict[str, Any]) -> int:
    for key, value in message.items():
        if key not in _MESSAGE_KEYS[role] and not (value is None and key in _MESSAGE_KEYS["assistant"]):
            raise BadRow(f"messages[{index}] has an unknown key {shown(key)} for a message of role {role}")
    weight = message.get("weight", 1)
    if type(weight) is not int or weight not in (0, 1):
        raise BadRow(f"messages[{index}].weight is {shown(weight)}; expected 0 or 1")
    tokens = 0
    for key in ("name", "tool_call_id", "reasoning_content"):
        value = message.get(key)
        if value is None:
            continue
        if type(value) is not str:
            raise BadRow(f"messages[{index}].{key} must be a string, found {shown(value)}")
        tokens += estimate_tokens(value)
    if (calls := message.get("tool_calls")) is not None:
        tokens += _check_calls(f"messages[{index}].tool_calls", calls)
    return tokens


def _check_calls(place: str, calls: Any) -> int:
    if type(calls) is not list or not calls:
        raise BadRow(f"{place} must be an array with at least one call")
    for number, call in enumerate(calls):
        function = _function_of(f"{place}[{number}]", call)
        if "id" in call and type(call["id"]) is not str:
            raise BadRow(f"{place}[{number}].id must be a string, found {shown(call['id'])}")
        _check_arguments(f"{place}[{number}].function.arguments", function.get("arguments"))
    return estimate_tokens(_as_json(calls))


def _check_arguments(place: str, arguments: Any) -> None:
    if type(arguments) is str:
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise BadRow(f"{place} is not JSON: {shown(arguments)}") from None
    if type(arguments) is not dict:
        raise BadRow(f"{place} must be a JSON object, found {shown(arguments)}")


def check_tools(row: dict[str, Any]) -> int:
    """The row's `tools`, if it has any; returns their estimated tokens."""
    tools = row.get("tools")
    if tools is None:
        return 0
    if type(tools) is not list:
        raise BadRow(f"tools must be an array, found {shown(tools)}")
    for number, tool in enumerate(tools):
        function = _function_of(f"tools[{number}]", tool)
        if type(function.get("parameters", {})) is not dict:
            raise BadRow(f"tools[{number}].function.parameters must be an object")
        if type(function.get("description", "")) is not str:
            raise BadRow(f"tools[{number}].function.description must be a string")
    return estimate_tokens(_as_json(tools))


def _function_of(place: str, holder: Any) -> dict[str, Any]:
    """The `function` of a tool or a tool call, with a name that can be called."""
    if type(holder) is not dict:
        raise BadRow(f"{place} must be an object, found {shown(holder)}")
    if holder.get("type", "function") != "function":
        raise BadRow(f'{place}.type is {shown(holder["type"])}; expected "function"')
    function = holder.get("function")
    if type(function) is not dict:
        raise BadRow(f"{place}.function must be an object, found {shown(function)}")
    name = function.get("name")
    if type(name) is not str or not name:
        raise BadRow(f"{place}.function.name must be a string that is not empty")
    return function


def _call_ids(calls: Any) -> set[str]:
    """The ids that tool messages may answer; the calls themselves are checked with their message."""
    if type(calls) is not list:
        return set()
    return {call["id"] for call in calls if type(call) is dict and type(call.get("id")) is str}


def _check_field_name(name: str) -> None:
    if len(name) > MAX_FIELD_NAME or not _fits_template(name):
        raise BadRow(
            f"the field name {shown(name)} cannot be used in a template: "
            f"it must be 1 to {MAX_FIELD_NAME} printable characters without braces"
        )


@lru_cache(maxsize=1024)
def _fits_template(name: str) -> bool:
    return name != "" and name.isprintable() and "{" not in name and "}" not in name


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
