"""What a request says of calling functions: `tools`, `tool_choice` and their older forms, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from gateway.checks import boolean, mapping, only, shown, string
from gateway.constraints import limits
from gateway.constraints.formats import checked_schema, require_bytes
from gateway.constraints.schema import Schema
from gateway.constraints.schema_places import resolved
from gateway.errors import invalid

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NO_PARAMETERS = {"type": "object", "properties": {}}
OF_CALLS = frozenset({"tools", "functions", "tool_choice", "function_call", "parallel_tool_calls"})


@dataclass(frozen=True, eq=False)
class Function:
    """Compared by identity: the same list of functions, sent again, is the same functions."""

    spec: dict[str, Any]
    """As the caller described it: name, description and parameters."""
    schema: Schema
    """Its arguments, as far as they can be enforced."""
    strict: bool

    @property
    def name(self) -> str:
        return str(self.spec["name"])


@dataclass(frozen=True)
class Calling:
    """The functions of a request, and which of them the answer may or must call."""

    functions: tuple[Function, ...]
    required: bool
    """The answer must be a call."""
    only: str | None
    """The function that it must be a call of, where one is named."""
    parallel: bool | None
    """Whether several calls may come in one answer; None where the caller has not said."""
    older: bool
    """Asked as `functions`, and to be answered by `function_call`."""

    @property
    def callable(self) -> tuple[Function, ...]:
        return tuple(each for each in self.functions if self.only in (None, each.name))

    @property
    def unenforced(self) -> list[str]:
        return [f"{each.name}: {part}" for each in self.callable for part in each.schema.unenforced]


def read_calling(fields: Mapping[str, Any], shown_functions: list[Any] | None = None) -> Calling | None:
    """None where nothing may be called. `shown_functions` are those of a message of the role `functions`."""
    if shown_functions is None and OF_CALLS.isdisjoint(fields):
        return None
    older = "functions" in fields
    if older and "tools" in fields:
        raise invalid("only one of 'tools' and 'functions' may be given", "functions")
    if shown_functions is not None and (older or fields.get("tools")):
        raise invalid("functions may be given in a message or in 'tools', but not in both", "messages")
    functions = _functions(fields, shown_functions)
    choice, param = _choice(fields)
    parallel = fields.get("parallel_tool_calls")
    if parallel is not None:
        boolean("parallel_tool_calls", parallel)
    if older and parallel:
        message = "an answer to 'functions' holds one call: give 'tools' for several"
        raise invalid(message, "parallel_tool_calls")
    if not functions:
        if choice not in ("auto", "none"):
            raise invalid(f"'{param}' asks for a tool, but there are no 'tools'", param)
        return None
    if choice == "none":
        return None
    named = choice["name"] if isinstance(choice, dict) else None
    if named is not None and named not in {each.name for each in functions}:
        raise invalid(f"'{param}' names {shown(named)}, which is none of the functions", param)
    return Calling(functions, choice != "auto", named, False if older else parallel, older)


def _functions(fields: Mapping[str, Any], shown_functions: list[Any] | None) -> tuple[Function, ...]:
    if shown_functions is not None:
        field, given = "messages", shown_functions
    else:
        field = "functions" if "functions" in fields else "tools"
        given = fields.get(field, [])
    if not isinstance(given, list):
        raise invalid(f"'{field}' must be a list of {'tools' if field == 'tools' else 'functions'}", field)
    if len(given) > limits.TOOLS:
        raise invalid(f"'{field}' may hold {limits.TOOLS} functions at most", field)
    encoded = msgspec.json.encode(given)
    require_bytes(field, encoded)
    if len(encoded) <= limits.KEPT_BYTES:
        return _read_encoded(field, encoded)
    return _read(field, given)


@lru_cache(maxsize=256)
def _read_encoded(field: str, encoded: bytes) -> tuple[Function, ...]:
    """Conversations send the same functions with each turn."""
    return _read(field, msgspec.json.decode(encoded))


def _read(field: str, given: list[Any]) -> tuple[Function, ...]:
    read = _tool if field == "tools" else _function
    found = tuple(read(f"{field}[{index}]", each) for index, each in enumerate(given))
    names = [each.name for each in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise invalid(f"'{field}[{index}]' has the name of another function, {name}", f"{field}[{index}]")
    return found


def _tool(field: str, value: Any) -> Function:
    tool = mapping(field, value)
    only(field, tool, {"type", "function"})
    if tool.get("type", "function") != "function":
        raise invalid(f"'{field}.type' must be function, not {shown(tool['type'])}", f"{field}.type")
    return _function(f"{field}.function", tool.get("function"))


def _function(field: str, value: Any) -> Function:
    function = {name: inner for name, inner in mapping(field, value).items() if inner is not None}
    only(field, function, {"name", "description", "parameters", "strict"})
    name = string(f"{field}.name", function.get("name"))
    if not FUNCTION_NAME.fullmatch(name):
        raise invalid(f"'{field}.name' must be 1 to 64 of a-z, A-Z, 0-9, _ and -", f"{field}.name")
    if "description" in function:
        string(f"{field}.description", function["description"])
    strict = boolean(f"{field}.strict", function.pop("strict", False))
    given = mapping(f"{field}.parameters", function.get("parameters", NO_PARAMETERS))
    schema = checked_schema(f"{field}.parameters", given or NO_PARAMETERS, strict=strict)
    if not _is_object(schema.form, schema.form):
        raise invalid(f"'{field}.parameters' must be the schema of an object", f"{field}.parameters")
    return Function(function, schema, strict)


def _is_object(form: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether all that a read schema allows are objects."""
    form = resolved(form, root) or {}
    if "anyOf" in form:
        return all(_is_object(each, root) for each in form["anyOf"])
    return form.get("type") == "object"


def _choice(fields: Mapping[str, Any]) -> tuple[str | dict[str, str], str]:
    """`auto`, `none`, `required` or the name of a function; and the field that says it."""
    if "tool_choice" in fields and "function_call" in fields:
        raise invalid("'function_call' is the older form of 'tool_choice'; give one of them", "function_call")
    if "tool_choice" in fields:
        return _tool_choice("tool_choice", fields["tool_choice"]), "tool_choice"
    if "function_call" in fields:
        given = fields["function_call"]
        if isinstance(given, str):
            return _tool_choice("function_call", given), "function_call"
        named = mapping("function_call", given)
        only("function_call", named, {"name"})
        return {"name": string("function_call.name", named.get("name"))}, "function_call"
    return "auto", "tool_choice"


def _tool_choice(field: str, value: Any) -> str | dict[str, str]:
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
    name = function.get("name") or choice.get("name")
    return "required" if name is None else {"name": string(f"{field}.function.name", name)}
