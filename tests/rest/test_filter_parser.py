"""What a filter says: the language of AIP-160, its errors with their column, and its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.rest.filters.nodes import And, Comparison, FilterError, Not, Or, Search, Value
from controlplane.rest.filters.parser import MAX_DEPTH, MAX_LENGTH, MAX_TERMS, MAX_WILDCARDS, parse_filter


def word(text, quoted=False):
    return Value(tuple(text.split("*")), quoted)


def find(text):
    return Search(word(text))


def compare(path, operator, text, quoted=False):
    return Comparison(tuple(path.split(".")), operator, word(text, quoted))


# The examples of AIP-160 and of its grammar's comments, and what they mean there.
EXAMPLES = [
    ("", None),
    ("   ", None),
    ("42", find("42")),
    ("Hugo", find("Hugo")),
    ("Victor Hugo", And((find("Victor"), find("Hugo")))),
    ("a AND b", And((find("a"), find("b")))),
    ("a OR b OR c", Or((find("a"), find("b"), find("c")))),
    ("a AND b OR c", And((find("a"), Or((find("b"), find("c")))))),
    ("NOT a", Not(find("a"))),
    ("-a", Not(find("a"))),
    ("a = true", compare("a", "=", "true")),
    ("a != 42", compare("a", "!=", "42")),
    ("a < 42", compare("a", "<", "42")),
    ('a > "foo"', compare("a", ">", "foo", quoted=True)),
    ('a <= "foo"', compare("a", "<=", "foo", quoted=True)),
    ("a >= 42", compare("a", ">=", "42")),
    ('a = "*.foo"', compare("a", "=", "*.foo", quoted=True)),
    ("a.b = true", compare("a.b", "=", "true")),
    ("a.b > 42", compare("a.b", ">", "42")),
    ('a.b.c = "foo"', compare("a.b.c", "=", "foo", quoted=True)),
    ("r:42", compare("r", ":", "42")),
    ("r.foo:42", compare("r.foo", ":", "42")),
    ("m:foo", compare("m", ":", "foo")),
    ("m.foo:*", compare("m.foo", ":", "*")),
    ("m.foo:42", compare("m.foo", ":", "42")),
    ("a b AND c AND d", And((And((find("a"), find("b"))), find("c"), find("d")))),
    (
        "New York Giants OR Yankees",
        And((find("New"), find("York"), Or((find("Giants"), find("Yankees"))))),
    ),
    (
        "New York (Giants OR Yankees)",
        And((find("New"), find("York"), Or((find("Giants"), find("Yankees"))))),
    ),
    ("a < 10 OR a >= 100", Or((compare("a", "<", "10"), compare("a", ">=", "100")))),
    (
        'NOT (a OR b) -file:".java"',
        And((Not(Or((find("a"), find("b")))), Not(compare("file", ":", ".java", True)))),
    ),
    ("-30", Not(find("30"))),
    ("package=com.google", compare("package", "=", "com.google")),
    ("msg != 'hello'", compare("msg", "!=", "hello", quoted=True)),
    ("1 > 0", compare("1", ">", "0")),
    ("2.5 >= 2.4", compare("2.5", ">=", "2.4")),
    ("foo >= -2.4", compare("foo", ">=", "-2.4")),
    ("yesterday < request.time", compare("yesterday", "<", "request.time")),
    (
        "(msg.endsWith = 'world' AND retries < 10)",
        And((compare("msg.endsWith", "=", "world", True), compare("retries", "<", "10"))),
    ),
    ("a = 2.997e9", compare("a", "=", "2.997e9")),
    ("a > 1.2s", compare("a", ">", "1.2s")),
    ("a > 2012-04-21T11:30:00-04:00", compare("a", ">", "2012-04-21T11:30:00-04:00")),
    ("a=2012-04-21T11:30:00.25Z b", And((compare("a", "=", "2012-04-21T11:30:00.25Z"), find("b")))),
    ("expr.type_map.AND.NOT = 1", compare("expr.type_map.AND.NOT", "=", "1")),
    ("a = (b OR -c)", Or((compare("a", "=", "b"), Not(compare("a", "=", "c"))))),
    ("a != (b OR c)", Not(Or((compare("a", "=", "b"), compare("a", "=", "c"))))),
    ("NOT(a = b)", Not(compare("a", "=", "b"))),
    ("name=accounts/x/models/y-z", compare("name", "=", "accounts/x/models/y-z")),
    ("email = a.b@x.org", compare("email", "=", "a.b@x.org")),
    ("ANDROID NOTES ORDER", And((find("ANDROID"), find("NOTES"), find("ORDER")))),
]


@pytest.mark.parametrize(("text", "meaning"), EXAMPLES, ids=[text or "nothing" for text, _ in EXAMPLES])
def test_a_filter_means_what_aip_160_says(text, meaning):
    assert parse_filter(text) == meaning


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (r'"a\"b"', ('a"b',)),
        (r"'a\'b'", ("a'b",)),
        (r'"a\\b"', ("a\\b",)),
        (r'"a\*b*c"', ("a*b", "c")),
        (r'"a\n\tb"', ("a\n\tb",)),
        ('"two\nlines"', ("two\nlines",)),
        ('"it\'s"', ("it's",)),
        ('""', ("",)),
        ("*", ("", "")),
        ("x*.y*z", ("x", ".y", "z")),
        ("50%", ("50%",)),
        ("naïve", ("naïve",)),
    ],
)
def test_values_have_escapes_and_wildcards(text, parts):
    found = parse_filter(f"a = {text}")
    assert isinstance(found, Comparison)
    assert found.value.parts == parts


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("state =", 8, "expected a field or a value"),
        ("= READY", 1, 'found "="'),
        ("a == b", 4, 'found "="'),
        ("(a OR b", 8, 'expected ")", found the end'),
        ("a)", 2, 'expected the end, found ")"'),
        ("a OR", 5, "found the end"),
        ("a AND AND b", 7, 'found "AND"'),
        ("OR b", 1, 'found "OR"'),
        ('a = "open', 5, 'a closing "'),
        ("a = 'open", 5, "a closing '"),
        (r'a = "x\qy"', 7, "expected one of"),
        ("a..b = 1", 3, "expected a field"),
        ("a .b = 1", 3, 'found "."'),
        ("a = b!", 6, 'found "!"'),
        ("a - b", 3, 'found "-"'),
        ("a : b : c", 7, 'found ":"'),
        ("a, b", 2, 'found ","'),
        ("()", 2, 'found ")"'),
        ("a = (b = c)", 6, "values only"),
        ("a = (b\n =c)", 6, "values only"),
        ("regex(m.key, '^.*prod.*$')", 1, "no function regex()"),
        ("a < f(x)", 5, "no function f()"),
        ("math.mem('30mb')", 1, "no function math.mem()"),
        ("x\n  AND\n  )", 11, 'found ")"'),
    ],
)
def test_a_mistake_is_shown_with_its_column_and_what_was_expected(text, column, words):
    with pytest.raises(FilterError) as refused:
        parse_filter(text)
    assert str(refused.value).startswith(f"filter, column {column}: ")
    assert words in str(refused.value)


def test_an_error_repeats_only_a_little_of_the_filter():
    with pytest.raises(FilterError) as refused:
        parse_filter("-" * 4000)
    assert len(str(refused.value)) < 300


def test_a_filter_may_be_as_large_as_its_limits_and_no_larger():
    parse_filter("a" * MAX_LENGTH)
    parse_filter("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    parse_filter(" OR ".join(["a=b"] * MAX_TERMS))
    parse_filter("a = " + "*x" * MAX_WILDCARDS)
    for text, words in [
        ("a" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH} characters"),
        ("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), f"at most {MAX_DEPTH} deep"),
        ("(" * MAX_LENGTH, f"at most {MAX_DEPTH} deep"),
        ("f(" * 1000, f"at most {MAX_DEPTH} deep"),
        (" OR ".join(["a=b"] * (MAX_TERMS + 1)), f"at most {MAX_TERMS} terms"),
        ("NOT a " * (MAX_TERMS + 1), f"at most {MAX_TERMS} terms"),
        ("a = " + "*x" * (MAX_WILDCARDS + 1), f"at most {MAX_WILDCARDS} wildcards"),
    ]:
        with pytest.raises(FilterError, match=words):
            parse_filter(text)


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.builds(
    lambda parts: Value(tuple(parts), quoted=True),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4),
)
LEAVES = st.one_of(
    VALUES.map(Search),
    st.builds(
        Comparison,
        st.lists(NAMES, min_size=1, max_size=3).map(tuple),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">=", ":"]),
        VALUES,
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda them: And(tuple(them))),
        st.lists(inner, min_size=2, max_size=3).map(lambda them: Or(tuple(them))),
    ),
    max_leaves=12,
)


def written(node):
    """The filter that a tree stands for, with all its parentheses."""
    match node:
        case Search(value):
            return quoted(value)
        case Comparison(path, operator, value):
            return f"{'.'.join(path)} {operator} {quoted(value)}"
        case Not(operand):
            return f"NOT ({written(operand)})"
        case And(operands):
            return " AND ".join(f"({written(operand)})" for operand in operands)
        case Or(operands):
            return " OR ".join(f"({written(operand)})" for operand in operands)


def quoted(value):
    escaped = (part.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") for part in value.parts)
    return f'"{"*".join(escaped)}"'


@given(TREES)
def test_whatever_is_written_is_read_back(tree):
    assert parse_filter(written(tree)) == tree


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_or_refused_with_a_column(text):
    _read_or_refused(text)


WORDS = ["a", "state", "AND", "OR", "NOT", "null", "é", "1e9", "2020-01-01T00:00:00Z", "f("]
MARKS = [".", "=", "!=", ":", "<", "(", ")", "-", '"', "'", "*", "\\", ",", " ", "\n"]
PIECES = st.sampled_from([*WORDS, *MARKS])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_heap_of_tokens_is_read_or_refused_with_a_column(text):
    _read_or_refused(text)


def _read_or_refused(text):
    try:
        parse_filter(text)
    except FilterError as error:
        column = int(str(error).removeprefix("filter, column ").partition(":")[0])
        assert 1 <= column <= len(text) + 1
