"""JSON Schemas: the forms they are read into, what of them is not enforced, and which are refused."""

import json

import jsonschema_rs
import pytest

from gateway.constraints.engine import written
from gateway.constraints.schema import read_schema
from gateway.constraints.schema_rules import SchemaError
from gateway.constraints.schema_text import schema_rules
from gateway.constraints.soundness import checked, refuse_left_recursion
from tests.gateway.constraints.sampling import accepts, drawn
from tests.work import calls_of

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
SHORT, SAYS_A = {"minLength": 2}, {"properties": {"a": TEXT}}
ANY_OBJECT = {"type": "object", "properties": {}, "required": [], "additionalProperties": {}}


def closed(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


READ = [
    (True, {}, ()),
    ({"title": "x", "description": "y", "default": 1, "x-order": 2}, {}, ()),
    ({"type": "object"}, ANY_OBJECT, ()),
    # An object with properties is closed, unless it says otherwise.
    ({"properties": {"a": TEXT}}, closed(a=TEXT), ()),
    ({"type": "object", "properties": {}}, closed(), ()),
    (
        {"properties": {"a": TEXT}, "additionalProperties": WHOLE},
        {**closed(a=TEXT), "additionalProperties": WHOLE},
        (),
    ),
    ({"type": "object", "unevaluatedProperties": False}, closed(), ()),
    ({"type": "object", "required": ["a"]}, {**ANY_OBJECT, "properties": {"a": {}}, "required": ["a"]}, ()),
    # One type or several, or told by the keywords.
    ({"type": ["string", "null"]}, {"anyOf": [TEXT, {"type": "null"}]}, ()),
    ({"minLength": 2}, {**TEXT, "minLength": 2}, ()),
    ({"items": TEXT}, {"type": "array", "items": TEXT}, ()),
    ({"type": "array"}, {"type": "array", "items": {}}, ()),
    (
        {"prefixItems": [TEXT, WHOLE], "minItems": 2, "maxItems": 2},
        {"type": "array", "prefixItems": [TEXT, WHOLE], "items": False, "minItems": 2, "maxItems": 2},
        (),
    ),
    ({"type": "integer", "minimum": 0}, {**WHOLE, "minimum": 0}, ()),
    ({"type": "integer", "exclusiveMinimum": 0}, {**WHOLE, "minimum": 1}, ()),
    ({"type": "integer", "minimum": 1, "maximum": 3}, {"enum": [1, 2, 3]}, ()),
    ({"type": "string", "format": "date"}, {**TEXT, "format": "date"}, ()),
    ({"const": 5}, {"enum": [5]}, ()),
    ({"type": "string", "enum": ["a", 1, None]}, {"enum": ["a"]}, ()),
    # Combinations.
    ({"anyOf": [TEXT, {"type": "null"}], "default": None}, {"anyOf": [TEXT, {"type": "null"}]}, ()),
    ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": TEXT}}, TEXT, ()),
    (
        {"allOf": [{"properties": {"a": TEXT}, "required": ["a"]}, {"properties": {"b": WHOLE}}]},
        closed(["a"], b=WHOLE, a=TEXT),
        (),
    ),
    (
        {"properties": {"a": TEXT, "b": TEXT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"anyOf": [closed(["a"], a=TEXT, b=TEXT), closed(["b"], a=TEXT, b=TEXT)]},
        (),
    ),
    ({"anyOf": [True, TEXT], "type": "null"}, {"anyOf": [{"type": "null"}, TEXT]}, ("type at #/anyOf/1",)),
    ({"oneOf": [TEXT, WHOLE]}, {"anyOf": [TEXT, WHOLE]}, ()),
    (
        {"oneOf": [{"type": "object", "properties": {"k": {"const": n}}, "required": ["k"]} for n in (1, 2)]},
        {"anyOf": [closed(["k"], k={"enum": [1]}), closed(["k"], k={"enum": [2]})]},
        (),
    ),
    (
        {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}},
        {"$ref": "#/$defs/d0", "$defs": {"d0": closed(next={"$ref": "#/$defs/d0"})}},
        (),
    ),
    (
        {"$ref": "#/definitions/a~1b", "definitions": {"a/b": TEXT}},
        {"$ref": "#/$defs/d0", "$defs": {"d0": TEXT}},
        (),
    ),
    # What is not enforced is listed.
    ({"type": "string", "pattern": "^a+$"}, TEXT, ("pattern at #",)),
    ({"type": "string", "format": "email"}, TEXT, ("format at #",)),
    ({"type": "string", "maxLength": 100_000}, TEXT, ("maxLength at #",)),
    ({"oneOf": [TEXT, {"maxLength": 2}]}, {"anyOf": [TEXT, {**TEXT, "maxLength": 2}]}, ("oneOf at #",)),
    ({"type": "number", "maximum": 1.5}, {"type": "number"}, ("maximum at #",)),
    (
        {"type": "number", "minimum": 0, "exclusiveMinimum": 0},
        {"type": "number"},
        ("minimum at #", "exclusiveMinimum at #"),
    ),
    ({"not": {"type": "null"}}, {}, ("not at #",)),
    ({"if": {}, "then": {}, "type": "null"}, {"type": "null"}, ("if at #", "then at #")),
    (
        {"properties": {"a/b": {"type": "array", "uniqueItems": True}}, "minProperties": 1},
        closed(**{"a/b": {"type": "array", "items": {}}}),
        ("minProperties at #", "uniqueItems at #/properties/a~1b"),
    ),
    (
        {"$ref": "#/$defs/a", "minLength": 2, "$defs": {"a": TEXT}},
        {"$ref": "#/$defs/d0", "$defs": {"d0": TEXT}},
        ("minLength at #",),
    ),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, {"type": "null"}, ("type at #/allOf/1",)),
    # What several parts say of one thing holds together.
    (
        {"allOf": [{"minLength": 2}, {"minLength": 3, "maxLength": 9}, {"maxLength": 5}]},
        {**TEXT, "minLength": 3, "maxLength": 5},
        (),
    ),
    ({"allOf": [{"type": ["string", "null"]}, {"type": ["null", "integer"]}]}, {"type": "null"}, ()),
    ({"allOf": [{"type": "number"}, {"type": "integer"}]}, WHOLE, ()),
    ({"allOf": [{"enum": [1, 2, 3]}, {"enum": [3, 2]}]}, {"enum": [3, 2]}, ()),
    (
        {"allOf": [{"properties": {"a": TEXT}, "required": ["a"]}, {"properties": {"a": SHORT, "b": {}}}]},
        closed(["a"], a={**TEXT, **SHORT}, b={}),
        (),
    ),
    (
        {"allOf": [{"properties": {"a": {"properties": {name: TEXT}}}} for name in "xy"]},
        closed(a=closed(x=TEXT, y=TEXT)),
        (),
    ),
    ({"allOf": [{"items": TEXT}, {"items": SHORT}]}, {"type": "array", "items": {**TEXT, **SHORT}}, ()),
    (
        {"allOf": [{"$ref": "#/$defs/a", "required": ["x"]}], "$defs": {"a": {"properties": {"x": TEXT}}}},
        closed(["x"], x=TEXT),
        (),
    ),
    # A part that is closed allows no properties of the others; one that is open, what it says of them.
    ({"allOf": [{**SAYS_A, "additionalProperties": False}, {"properties": {"b": TEXT}}]}, closed(a=TEXT), ()),
    (
        {"allOf": [{**SAYS_A, "additionalProperties": WHOLE}, {"properties": {"b": {"minimum": 0}}}]},
        {**closed(b={**WHOLE, "minimum": 0}, a=TEXT), "additionalProperties": WHOLE},
        (),
    ),
    (
        {"allOf": [{**SAYS_A, "unevaluatedProperties": False}, {"properties": {"a": {}, "b": {}}}]},
        closed(a=TEXT),
        (),
    ),
    (
        {"allOf": [SAYS_A], "properties": {"b": TEXT}, "unevaluatedProperties": False},
        closed(b=TEXT, a=TEXT),
        (),
    ),
    # What is said of all items is said of the first ones, too.
    (
        {"allOf": [{"prefixItems": [TEXT], "items": False}, {"items": SHORT}]},
        {"type": "array", "prefixItems": [{**TEXT, **SHORT}], "items": False},
        (),
    ),
    (
        {"allOf": [{"prefixItems": [TEXT, TEXT]}, {"prefixItems": [SHORT], "items": False}]},
        {"type": "array", "prefixItems": [{**TEXT, **SHORT}], "items": False},
        (),
    ),
    # A pattern's properties are not enforced; what is forbidden beside them stays so, or is listed.
    (
        {
            "allOf": [
                {**SAYS_A, "additionalProperties": False, "patternProperties": {"^x": {}}},
                {"required": ["a"]},
            ]
        },
        closed(["a"], a=TEXT),
        ("patternProperties at #",),
    ),
    (
        {
            "allOf": [
                {**SAYS_A, "additionalProperties": False, "patternProperties": {"^x": {}}},
                {"properties": {"b": TEXT}},
            ]
        },
        closed(b=TEXT, a=TEXT),
        ("additionalProperties at #/allOf/1", "patternProperties at #"),
    ),
    (
        {"properties": {"a": False, "b": TEXT}, "additionalProperties": WHOLE},
        {**closed(b=TEXT), "additionalProperties": WHOLE},
        ("false at #/properties/a",),
    ),
    ({"allOf": [{"const": 1}, {"const": True}]}, {"enum": [True]}, ("const at #/allOf/1",)),
]


@pytest.mark.parametrize(("given", "form", "unenforced"), READ)
def test_a_schema_is_read_into_what_can_be_enforced(given, form, unenforced):
    read = read_schema(given)
    assert read.form == form
    assert read.unenforced == unenforced


REFUSED = [
    ("text", "a schema must be an object or true or false"),
    (False, "at #: it is false"),
    ({"type": "text"}, "at #/type: it is no valid JSON Schema"),
    ({"properties": {"a": {"minLength": "2"}}}, "at #/properties/a/minLength: it is no valid JSON Schema"),
    ({"enum": []}, "at #: no value is allowed"),
    ({"type": "integer", "enum": ["a"]}, "at #: no value is allowed"),
    ({"anyOf": [False, False]}, "at #: no value is allowed"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "at #: its bounds leave no value"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "at #: maxLength is less than minLength"),
    ({"prefixItems": [TEXT], "minItems": 2}, "at #: it asks for more items than it allows"),
    (
        {"properties": {"a": TEXT}, "required": ["b"]},
        "at #: it requires 'b', which is none of its properties",
    ),
    (
        {"allOf": [{**SAYS_A, "additionalProperties": False}, {"properties": {"b": {}}, "required": ["b"]}]},
        "at #/properties/b: it is false, which no value fulfils",
    ),
    ({"$ref": "#/$defs/none"}, "at #: there is nothing at #/$defs/none"),
    ({"$ref": "https://example.org/schema.json"}, "at #: $ref may only lead to a place in the same schema"),
    ({"items": {"$ref": "other.json#/a"}}, "at #/items: $ref may only lead to a place in the same schema"),
    ({"enum": list(range(1001))}, "at #: it allows too many values to list"),
    ({"prefixItems": [{}] * 1000}, "it has more than 1000 parts"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_no_schema_or_has_no_value_is_refused_with_its_place(given, message):
    with pytest.raises(SchemaError) as refused:
        read_schema(given)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("depth", [50, 1000, 20_000])
def test_a_schema_nested_without_end_is_refused(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    with pytest.raises(SchemaError, match="nested more than 40 levels deep"):
        read_schema(schema)


ENDLESS = [
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"properties": {"next": {"$ref": "#"}}, "required": ["next"]},
    {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
]


@pytest.mark.parametrize("given", ENDLESS)
def test_a_schema_that_leads_back_to_itself_without_end_is_refused(given):
    with pytest.raises(ValueError, match=r"no text that ends|may start with itself"):
        refuse_left_recursion(checked(schema_rules(read_schema(given).form)))


def grammar(given) -> str:
    return written(checked(schema_rules(read_schema(given).form)))


ALLOWS = [
    (
        {"type": "object"},
        ["{}", '{"a": [1, {"b": null}]}', '{\n  "a": 1\n}'],
        ["[]", '{"a"}', "{" + " " * 99 + "}"],
    ),
    (
        closed(["b"], a=TEXT, b=WHOLE, c=TEXT),
        ['{"b": 1}', '{"a":"x","b":-2,"c":""}', '{"b":0, "c":"y"}'],
        ["{}", '{"a":"x"}', '{"b":1,"a":"x"}', '{"b":1,"d":2}', '{"b":1,}', '{"b":01}'],
    ),
    (
        {"properties": {"ab": WHOLE, "b": TEXT}, "additionalProperties": {"type": "boolean"}},
        ["{}", '{"ab": 1, "b": "x", "abc": true, "a": false}', '{"c":true}'],
        ['{"ab": true}', '{"b": true}', '{"a": 1}', '{"\\u0061b": true}'],
    ),
    ({"items": WHOLE, "minItems": 1, "maxItems": 2}, ["[1]", "[1, 2]"], ["[]", "[1,2,3]", "[1,]"]),
    (
        {"prefixItems": [TEXT, WHOLE], "items": {"type": "null"}},
        ['["a", 1]', '["a",1,null,null]'],
        ['["a"]', "[1]"],
    ),
    (
        {"type": "string", "minLength": 1, "maxLength": 2},
        ['"a"', '"\\n\\u00e9"', '"漢😀"'],
        ['""', '"abc"', '"\n"'],
    ),
    ({"type": "string"}, ['"\\\\ \\/ \\u00ff"'], ['"\\x"', '"\\ud800"', '"\\uDFFF"', '"a', '"\x00"']),
    ({"type": "integer", "minimum": 1}, ["1", "900"], ["0", "-1", "01", "1.0"]),
    ({"type": "number"}, ["0", "-1.5e-9", "12"], ["1e999", ".5", "NaN", "Infinity", "-", "9" * 30]),
    (
        {"type": "string", "format": "date-time"},
        ['"2024-02-29T23:59:59.5Z"'],
        ['"2024-13-01T00:00:00Z"', '"2024-04-31T00:00:00Z"'],
    ),
    ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']),
    ({"enum": ['é"\n', {"a": [1]}]}, [json.dumps('é"\n', ensure_ascii=False), '{"a": [1]}'], ['"é"']),
]


@pytest.mark.parametrize(("given", "good", "bad"), ALLOWS)
def test_a_schema_allows_what_it_says_and_only_so_much_whitespace(given, good, bad):
    told = grammar(given)
    assert [text for text in good if not accepts(told, text)] == []
    assert [text for text in bad if accepts(told, text)] == []


def test_answers_of_a_recursive_schema_come_to_an_end():
    tree = {
        "properties": {"name": TEXT, "children": {"items": {"$ref": "#"}, "maxItems": 2}},
        "required": ["name"],
    }
    told = grammar(tree)
    answers = [answer for seed in range(30) if (answer := drawn(told, seed))]
    assert len(answers) > 10
    assert all(jsonschema_rs.is_valid(tree, json.loads(answer)) for answer in answers)


def test_a_schema_of_twice_the_size_is_twice_the_work():
    def large(count):
        return {"properties": {f"field{n}": {"enum": [f"v{k}" for k in range(10)]} for n in range(count)}}

    half, whole = calls_of(lambda: grammar(large(250))), calls_of(lambda: grammar(large(500)))
    assert whole < 2.2 * half
    assert whole < 2_000_000
