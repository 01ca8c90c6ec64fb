"""The control plane's messages as tables of their fields, from its OpenAPI document and its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from controlplane.rest.schema import ApiModel
from docs.generator.markdown import code, link, table

SCHEMAS = "#/components/schemas/"
# FastAPI gives a message these endings when it reads otherwise than it is written.
DIRECTIONS = ("-Input", "-Output")
# Defaults that say no more than that nothing was set.
UNSET: tuple[object, ...] = ("", None, [], {}, False)


class Schemas:
    """The messages of an OpenAPI document, each under one name for both directions."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components: dict[str, Any] = document["components"]["schemas"]
        self._classes = {model.__name__: model for model in _subclasses(ApiModel)}
        operations = [each for path in document["paths"].values() for each in path.values()]
        self._sent = set(self.within([each.get("requestBody", {}) for each in operations]))

    def message(self, name: str) -> Mapping[str, Any]:
        """The message's JSON schema, as clients may send it where it is one of ours."""
        if model := self._classes.get(name):
            return model.model_json_schema(ref_template=SCHEMAS + "{model}")
        found: dict[str, Any] = self._components[name]
        return found

    def about(self, name: str) -> str:
        return " ".join(str(self.message(name).get("description", "")).split())

    def within(self, part: Any) -> Iterator[str]:
        """The messages that a part of the document refers to, and those that they consist of."""
        seen: list[str] = []
        rest = [part]
        while rest:
            for name in dict.fromkeys(_references(rest.pop(0))):
                if name not in seen:
                    seen.append(name)
                    rest.append(self.message(name))
        yield from seen

    def fields(self, name: str) -> str:
        """The table of a message's fields."""
        message = self.message(name)
        model = self._classes.get(name)
        refused = {to_camel(field): why for field, why in model.unsupported.items()} if model else {}
        required = message.get("required", [])
        rows = []
        for field, schema in message.get("properties", {}).items():
            words = (
                [_about_sending(schema, field in required, refused.get(field))] if name in self._sent else []
            )
            rows.append((code(field), describe_type(schema), " ".join([*words, _sentence(schema)])))
        return table(("field", "type", "what it is"), rows)


def message_name(reference: str) -> str:
    name = reference.removeprefix(SCHEMAS)
    for direction in DIRECTIONS:
        name = name.removesuffix(direction)
    return name


def describe_type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words: `integer, 0 to 64`, `list of string`, `Status`."""
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    if choices:
        return " or ".join(describe_type(choice) for choice in choices)
    if "$ref" in schema:
        return link(message_name(schema["$ref"]))
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        words = f"list of {describe_type(schema.get('items', {}))}"
    elif kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        words = f"map of string to {describe_type(values)}"
    else:
        words = {
            "date-time": "timestamp",
            "google-duration": "duration",
            "int64": "64-bit integer",
            "binary": "file",
        }.get(schema.get("format", ""), kind)
    return words + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:.15g} to {high:.15g}"
    if low is not None and (below := schema.get("exclusiveMaximum")) is not None:
        return f", {low:.15g} to less than {below:.15g}"
    if low is not None:
        return f", at least {low:.15g}"
    for key, unit in (("maxLength", " characters"), ("maxItems", ""), ("maxProperties", " entries")):
        if key in schema:
            return f", at most {schema[key]}{unit}"
    return ""


def _about_sending(schema: Mapping[str, Any], required: bool, refused: str | None) -> str:
    """What matters to who sends the field: whether it has to be there, may be there, and what it is else."""
    if schema.get("readOnly"):
        return "Output only."
    if required:
        return "Required."
    if refused is not None:
        return f"Refused: {refused}."
    default = schema.get("default")
    if default in UNSET or str(default).endswith("_UNSPECIFIED"):
        return ""
    return f"Default {code(str(default).lower() if default is True else str(default))}."


def _sentence(schema: Mapping[str, Any]) -> str:
    text = str(schema.get("description", ""))
    return text if not text or text.endswith(".") else f"{text}."


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str) and reference.startswith(SCHEMAS):
            yield message_name(reference)
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


def _subclasses(model: type[ApiModel]) -> Iterator[type[ApiModel]]:
    for subclass in model.__subclasses__():
        if subclass.__module__.startswith("controlplane."):
            yield subclass
        yield from _subclasses(subclass)
