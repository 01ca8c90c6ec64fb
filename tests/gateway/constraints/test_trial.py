"""Grammars that recurse: those in use pass, those that would keep an engine busy are refused."""

import pytest

from gateway.constraints.engine import written
from gateway.constraints.gbnf import GbnfError, read_gbnf
from tests.gateway.constraints.sampling import accepts
from tests.work import calls_of

JSON = r"""
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= ([ \t\n] ws)?
"""
ARITHMETIC = r"""
root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num ::= [0-9]+ ws
ws ::= [ \t\n]*
"""
AMBIGUOUS = """
root ::= ws root ws op ws root ws | root "?" root ":" root | "(" root ")" | "-" root | call | [0-9]+
call ::= [a-z]+ "(" (root ("," root)*)? ")"
op ::= "+" | "-" | "*" | "/" | "<=" | "<" | "=="
ws ::= " "*
"""
OPERATORS = "root ::= " + " | ".join(f'root "{each}" root' for each in "+-*/%^<>=&") + " | [0-9]+"
SQL = """
root ::= "SELECT " cols " FROM " name (" WHERE " cond)?
cols ::= "*" | expr (", " expr)*
cond ::= cond " AND " cond | cond " OR " cond | "NOT " cond | "(" cond ")" | expr " "? op " "? expr
op ::= "=" | "<" | ">" | "<=" | ">=" | "<>"
expr ::= expr " "? [-+*/] " "? expr | name | [0-9]+ | "'" [^']* "'" | name "(" cols ")" | "(" expr ")"
name ::= [a-z_] [a-z0-9_]* ("." [a-z_]+)?
"""
ELEMENTS = [f"e{number}" for number in range(100)]
MARKUP = f"root ::= (text | {' | '.join(ELEMENTS)})*\ntext ::= [^<>]+\n" + "\n".join(
    f'{each} ::= "<{each}>" root "</{each}>"' for each in ELEMENTS
)
WORDS = 'root ::= (word | "(" root ")")*\nword ::= [a-z]+'
ELSE = 'root ::= "if " root (" else " root)? | "s"'

IN_USE = [
    (JSON, '{"a": [1, {"b": "\\u00e9"}],\n "c": -1.5e3}'),
    (ARITHMETIC, "(a +2*b1)/3 =7\n"),
    (AMBIGUOUS, "f(1, -2 )".replace(" ", "") + " + (3*4) <= 5?6:7"),
    (OPERATORS, "1+2*3^4"),
    (SQL, "SELECT a.b, max(c) FROM t WHERE NOT (a + 1 >= 2 AND b = 'x') OR c < 3"),
    (MARKUP, "a<e1>b<e99></e99></e1>c"),
    (WORDS, "ab(cd(e))f"),
    (ELSE, "if if s else s else s"),
    ('root ::= [ab] root [ab] | ""', "abba"),
    ('root ::= "x" | ' + " | ".join(f'root "{number}"' for number in range(100)), "x1799"),
]


@pytest.mark.parametrize(("grammar", "text"), IN_USE)
def test_a_grammar_in_use_passes(grammar: str, text: str) -> None:
    assert accepts(written(read_gbnf(grammar)), text)


def several(count: int, rule: str) -> str:
    names = [f"r{number}" for number in range(count)]
    return f"root ::= {' | '.join(names)}\n" + "\n".join(
        f"{name} ::= {rule.format(number=number)}" for number, name in enumerate(names)
    )


MOST_CALLS = 2_000_000
"""A second of one core at most."""
HOSTILE = [
    ('root ::= root root | "a"', "root"),
    ('root ::= root root | "a" | ""', "root"),
    ('root ::= root root root | root root | "a" | "aa"', "root"),
    ('root ::= ("a" root?)+', "root"),
    ('root ::= "a" root{0,8}', "root"),
    ('root ::= "x" e "!"\ne ::= "a" e{0,8}', "e"),
    ('root ::= a b?\na ::= "a" root | "a"\nb ::= "a" root | "a"', "root"),
    (several(20, '" " root root | " "'), "root"),
    (several(100, '" " root root "{number}"? | " "'), "root"),
    # Most characters that it offers lead astray.
    ('root ::= e | d\ne ::= "a" e{0,8}\nd ::= "x" ("x" d | "xx" d | "xxx" d)', "e"),
]


@pytest.mark.parametrize(("grammar", "rule"), HOSTILE)
def test_a_hostile_grammar_is_refused_with_the_rule_to_blame(grammar: str, rule: str) -> None:
    def read() -> None:
        with pytest.raises(
            GbnfError, match=f"^line .* rule '{rule}': its recursion can be read in too many ways$"
        ):
            read_gbnf(grammar)

    assert calls_of(read) < MOST_CALLS


LARGE = [
    "root ::= [" + "ab" * 7000 + "] root | [" + "cd" * 7000 + '] root | "x"',
    r'root ::= [^\U00000000-\U0010ffff] root | "x" root | "y"',
    'root ::= "(" (' + " | ".join(f'"{number:04d}" root' for number in range(1500)) + ') ")" | "x"',
    "root ::= r0\n"
    + "\n".join(f'r{n} ::= r{n + 1} r{n + 1}? | "("' for n in range(499))
    + '\nr499 ::= root "a"',
]


@pytest.mark.parametrize("grammar", LARGE)
def test_a_trial_takes_no_time_to_speak_of(grammar: str) -> None:
    def read() -> None:
        try:
            read_gbnf(grammar)
        except GbnfError as error:
            assert str(error)

    assert calls_of(read) < MOST_CALLS
