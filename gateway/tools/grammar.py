"""The grammar of an answer that calls functions, as text: `{"name": "…", "arguments": {…}}`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.constraints import limits
from gateway.constraints.grammar import (
    ANY,
    ROOT,
    Either,
    Expression,
    Name,
    Repeat,
    Rules,
    chars,
    optional,
    sequence,
)
from gateway.constraints.json_text import literal
from gateway.constraints.schema_text import SchemaRules
from gateway.tools.requested import Calling, Function

BLANK = " \t\n"
BLANKS = Repeat(chars(BLANK), 0, 8)


def call_rules(calling: Calling, member: str) -> Rules:
    """Calls of what may be called, their arguments as `member`; or any text that does not begin like one."""
    made = SchemaRules()
    made.rules["call"] = Either(tuple(_call(made, each, member) for each in calling.callable))
    calls = _several(Name("call")) if calling.parallel else Name("call")
    if calling.required:
        return {ROOT: calls, **made.rules}
    opening = "{[" if calling.parallel else "{"
    words = optional(chars(opening + BLANK, negated=True), Repeat(ANY))
    return {ROOT: sequence(BLANKS, Either((calls, words))), **made.rules}


def _call(made: SchemaRules, function: Function, member: str) -> Expression:
    start = f'{{"name": {literal(function.name)}, "{member}": '
    return sequence(start, made.of(function.schema.form), "}")


def _several(call: Expression) -> Expression:
    return sequence("[", call, Repeat(sequence(", ", call), 0, limits.CALLS - 1), "]")


def shown_call(name: str, arguments: str, member: str) -> str:
    """A call in the same form, of an earlier message."""
    return f'{{"name": {literal(name)}, "{member}": {arguments}}}'


def shown_calls(calls: Sequence[str]) -> str:
    return calls[0] if len(calls) == 1 else f"[{', '.join(calls)}]"
