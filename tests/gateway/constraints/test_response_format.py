"""`response_format` as requests carry it: what the engine is held to, and what callers are told of it."""

import json

import pytest

from gateway.dialect import translate_chat, translate_completion
from gateway.errors import GatewayError
from tests.gateway.constraints.sampling import accepts

QUESTION = [{"role": "user", "content": "?"}]
PERSON = {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}


def chat(**fields):
    return translate_chat({"model": "m", "messages": QUESTION, **fields}, 4096)


def completion(**fields):
    return translate_completion({"model": "m", "prompt": "?", **fields}, 4096)


def json_schema(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, **more}}


FORMATS = [
    ({"type": "json_object"}, ['{"any": [1]}'], ["[]", "text"]),
    ({"type": "json_object", "schema": PERSON}, ['{"name":"x"}'], ['{"age":1}', '{"name":"x","b":1}']),
    ({"type": "json_object", "schema": json.dumps(PERSON)}, ['{"name":"x"}'], ['{"age":1}']),
    (json_schema(PERSON), ['{"name": "x", "age": 3}'], ["{}"]),
    (json_schema(json.dumps(PERSON), strict=True), ['{"name": "x"}'], ["{}"]),
    (
        {"type": "json_schema", "json_schema": json.dumps({"name": "person", "schema": PERSON})},
        ['{"name": "x", "age": 3}'],
        ["{}"],
    ),
    ({"type": "grammar", "grammar": 'root ::= "a" | "b"'}, ["a", "b"], ["c"]),
]


@pytest.mark.parametrize("translate", [chat, completion])
@pytest.mark.parametrize(("wanted", "good", "bad"), FORMATS)
def test_the_engine_is_held_to_the_format(translate, wanted, good, bad):
    body = translate(response_format=wanted).body
    assert "response_format" not in body
    told = body["structured_outputs"]["grammar"]
    assert [text for text in good if not accepts(told, text)] == []
    assert [text for text in bad if accepts(told, text)] == []


def test_plain_text_is_left_alone():
    assert chat(response_format={"type": "text"}).body == chat().body


def test_what_cannot_be_enforced_is_listed_in_a_header():
    schema = {"properties": {"a": {"type": "string", "pattern": "x"}, "é, b": {"not": {}}}}
    request = chat(response_format={"type": "json_object", "schema": schema})
    listed = b"pattern at #/properties/a, not at #/properties/%C3%A9, b"
    assert request.headers == [(b"hearth-schema-not-enforced", listed)]
    assert chat(response_format={"type": "json_object", "schema": PERSON}).headers == []


def test_a_long_list_of_what_cannot_be_enforced_is_cut():
    schema = {"properties": {f"field{n}": {"type": "string", "pattern": "x"} for n in range(500)}}
    [(_, listed)] = chat(response_format={"type": "json_object", "schema": schema}).headers
    assert len(listed) < 1100
    assert listed.endswith(b", and more")


@pytest.mark.parametrize(("names", "ending"), [(300, b", and more"), (1, b"more than can be told here")])
def test_the_header_is_as_short_when_its_names_have_to_be_encoded(names, ending):
    deep = {"type": "string", "pattern": "x"}
    for level in range(1 if names > 1 else 5):
        deep = {"properties": {f"{'é' * 90}{level}": deep}}
    schema = {"properties": {f"{'€' * 20}{n}": deep for n in range(names)}}
    [(_, listed)] = chat(response_format={"type": "json_object", "schema": schema}).headers
    assert len(listed) < 1100
    assert listed.endswith(ending)


FORMAT = "Invalid format type: None. Must be one of: text, grammar, json_schema, json_object"
WRONG = [
    ("json", "response_format", "must be an object"),
    ({"type": None}, "response_format", FORMAT),
    ({"type": "yaml"}, "response_format", "Invalid format type: yaml."),
    ({"type": "text", "schema": {}}, "response_format.schema", "Extra inputs"),
    ({"type": "json_schema"}, "response_format.json_schema", "must be an object"),
    (json_schema(None), "response_format.json_schema.schema", "must be an object"),
    (json_schema(PERSON, strict="yes"), "response_format.json_schema.strict", "must be true or false"),
    (json_schema(PERSON, mode=1), "response_format.json_schema.mode", "Extra inputs"),
    ({"type": "json_object", "schema": "{"}, "response_format.schema", "not valid JSON"),
    ({"type": "json_object", "schema": "[" * 5000}, "response_format.schema", "not valid JSON"),
    (
        {"type": "json_object", "schema": {"properties": {"a": {"type": "word"}}}},
        "response_format.schema",
        "at #/properties/a/type: it is no valid JSON Schema",
    ),
    (
        json_schema({"type": "string", "pattern": "x"}, strict=True),
        "response_format.json_schema.schema",
        "cannot be kept to strictly: pattern at #",
    ),
    (
        {"type": "json_object", "schema": {"$ref": "#"}},
        "response_format.schema",
        "cannot be kept to: no text that ends could fulfil it",
    ),
    (
        json_schema({"title": "x" * 300_000}),
        "response_format.json_schema.schema",
        "is larger than 262144 bytes",
    ),
    ({"type": "grammar"}, "response_format.grammar", "must be a string"),
    (
        {"type": "grammar", "grammar": 'root ::= "a'},
        "response_format.grammar",
        "line 1, column 10: a text that is",
    ),
]


@pytest.mark.parametrize("translate", [chat, completion])
@pytest.mark.parametrize(("wanted", "param", "message"), WRONG)
def test_what_is_no_format_is_refused_with_its_place(translate, wanted, param, message):
    with pytest.raises(GatewayError) as refused:
        translate(response_format=wanted)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert message in refused.value.message


def test_an_answer_that_must_end_somewhere_cannot_ignore_its_end():
    with pytest.raises(GatewayError, match="'ignore_eos' may not be given together with 'response_format'"):
        chat(response_format={"type": "json_object"}, ignore_eos=True)
    assert chat(response_format={"type": "json_object"}, ignore_eos=False).body["ignore_eos"] is False
