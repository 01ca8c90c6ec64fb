"""The grammar of the JSON texts that a read schema (see `schema.py`) allows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.constraints.grammar import (
    NOTHING,
    ROOT,
    Chars,
    Either,
    Expression,
    Name,
    Repeat,
    Text,
    optional,
    sequence,
)
from gateway.constraints.json_text import (
    ANY_OBJECT,
    FORMATS,
    NOT_PLAIN,
    NUMBERS,
    PLAIN,
    any_value,
    listed,
    literal,
    members,
)

SPACE = Name("space")


class SchemaRules:
    """Rules for schemas, which share their definitions and what all JSON texts are made of."""

    def __init__(self) -> None:
        self.rules: dict[str, Expression] = any_value()
        self._made = 0

    def of(self, form: dict[str, Any]) -> Expression:
        """What a whole schema allows, with its definitions."""
        prefix = self._new("definitions")
        for name, definition in form.get("$defs", {}).items():
            self.rules[f"{prefix}/{name}"] = self._of(definition, prefix)
        return self._of(form, prefix)

    def _of(self, form: dict[str, Any], prefix: str) -> Expression:
        match form:
            case {"$ref": reference}:
                return Name(f"{prefix}/{reference.removeprefix('#/$defs/')}")
            case {"anyOf": choices}:
                return Either(tuple(self._of(choice, prefix) for choice in choices))
            case {"enum": values}:
                return Either(tuple(Text(literal(value)) for value in values))
            case {"type": kind}:
                return self._of_type(kind, form, prefix)
        return Name("value")

    def _of_type(self, kind: str, form: dict[str, Any], prefix: str) -> Expression:
        match kind:
            case "object":
                return self._object(form, prefix)
            case "array":
                return self._array(form, prefix)
            case "string":
                return _string(form)
            case "integer" | "number":
                return NUMBERS[kind, form.get("minimum")]
            case "boolean":
                return Either((Text("true"), Text("false")))
        return Text("null")

    def _array(self, form: dict[str, Any], prefix: str) -> Expression:
        first = [self._of(inner, prefix) for inner in form.get("prefixItems", [])]
        least = max(0, form.get("minItems", 0) - len(first))
        most = form["maxItems"] - len(first) if "maxItems" in form else None
        if form["items"] is False:
            most = 0
        rest = NOTHING if most == 0 else self._named(self._of(form["items"], prefix))
        if first:
            separated = [part for item in first for part in (Text(","), SPACE, item)][2:]
            more = Repeat(sequence(",", SPACE, rest), least, most) if most != 0 else NOTHING
            return sequence("[", *separated, more, SPACE, "]")
        if most == 0:
            return sequence("[", SPACE, "]")
        items = sequence(listed(rest, least, most), SPACE)
        return sequence("[", SPACE, items if least else optional(items), "]")

    def _object(self, form: dict[str, Any], prefix: str) -> Expression:
        properties, others = form["properties"], form["additionalProperties"]
        other = None if others is False else self._other(properties, others, prefix)
        if not properties:
            return (
                sequence("{", SPACE, "}")
                if other is None
                else (ANY_OBJECT if others == {} else members(other))
            )
        needed = frozenset(form["required"])
        fields = [
            (sequence(literal(name), ":", SPACE, self._of(inner, prefix)), name in needed)
            for name, inner in properties.items()
        ]
        return sequence("{", SPACE, self._fields(fields, other), "}")

    def _fields(self, fields: list[tuple[Expression, bool]], other: Expression | None) -> Expression:
        """The members in their order, those that are not required left out at will.

        From the last one on, each rule says what may follow when something stands before it, after a comma,
        and when nothing does.
        """
        extra = Repeat(sequence(",", SPACE, other)) if other else NOTHING
        after = self._rule(sequence(extra, SPACE))
        first: Expression = optional(listed(other), SPACE) if other else NOTHING
        for member, required in reversed(fields):
            as_first, as_next = sequence(member, after), sequence(",", SPACE, member, after)
            if required:
                first, after = as_first, self._rule(as_next)
            else:
                first, after = self._rule(Either((as_first, first))), self._rule(Either((as_next, after)))
        return first

    def _other(self, properties: Iterable[str], others: dict[str, Any], prefix: str) -> Expression:
        key = self._other_key(frozenset(properties))
        return sequence(key, ":", SPACE, self._of(others, prefix))

    def _other_key(self, taken: frozenset[str]) -> Expression:
        """Any key but some. Escapes are left out where there are some, since they could spell one of them."""
        if not taken:
            return Name("string")
        return sequence('"', self._unlike(taken, ""))

    def _unlike(self, taken: frozenset[str], start: str) -> Expression:
        """What may follow `start` in a key that is none of `taken`, up to its closing quote."""
        nexts = sorted({name[len(start)] for name in taken if name.startswith(start) and name != start})
        plain = [each for each in nexts if _is_plain(each)]
        unlike = Chars((*NOT_PLAIN, *((ord(each), ord(each)) for each in plain)), negated=True)
        choices: list[Expression] = [sequence(unlike, Repeat(PLAIN), '"')]
        if start not in taken:
            choices.append(Text('"'))
        choices += [sequence(each, self._rule(self._unlike(taken, start + each))) for each in plain]
        return Either(tuple(choices))

    def _rule(self, expression: Expression) -> Name:
        name = self._new("part")
        self.rules[name] = expression
        return Name(name)

    def _named(self, expression: Expression) -> Expression:
        """The expression, by a name where it is written more than once."""
        return expression if isinstance(expression, Name | Text | Chars) else self._rule(expression)

    def _new(self, kind: str) -> str:
        self._made += 1
        return f"{kind} {self._made}"


def schema_rules(form: dict[str, Any]) -> dict[str, Expression]:
    """The rules for one schema, as a whole answer."""
    made = SchemaRules()
    root = made.of(form)
    return {ROOT: root, **made.rules}


def _string(form: dict[str, Any]) -> Expression:
    if "format" in form:
        return sequence('"', FORMATS[form["format"]], '"')
    if "minLength" not in form and "maxLength" not in form:
        return Name("string")
    return sequence('"', Repeat(Name("character"), form.get("minLength", 0), form.get("maxLength")), '"')


def _is_plain(character: str) -> bool:
    return not any(first <= ord(character) <= last for first, last in NOT_PLAIN)
