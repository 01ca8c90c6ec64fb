"""Grammars as callers write them: what they allow, where they are wrong, and that none is hard to follow."""

import pytest

from gateway.constraints import gbnf
from gateway.constraints.engine import written
from gateway.constraints.gbnf import GbnfError, read_gbnf
from gateway.constraints.grammar import GrammarError
from tests.gateway.constraints.sampling import END, Follower, accepts
from tests.work import calls_of

CHESS = """
# the moves of a game
root ::= (
    # the first move has no number of two digits
    "1. " move " " move "\\n"
    ([1-9] [0-9]? ". " move " " move "\\n")+
)
move ::= (pawn | nonpawn | castle) [+#]?
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
castle ::= "O-O" "-O"?
"""
SPEECH = """
root ::= letter+ ([ \t\n] letter+)*
letter ::= hiragana | katakana | mark | cjk
hiragana ::= [ぁ-ゟ]
katakana ::= [\\u30a1-\\U000030ff]
mark ::= [、-〾]
cjk ::= [一-鿿]
"""
PROGRAM = """
root ::= (declaration)*
declaration ::= dataType identifier "(" ")" "{" statement* "}"
dataType ::= "int" ws | "char" ws
identifier ::= [a-zA-Z_] [a-zA-Z_0-9]*
statement ::=
    ( dataType identifier ws "=" ws expression ";" ) |
    ( "return" ws expression ";" ) |
    ( comment )
expression ::= term (("+" | "-") term)*
term ::= factor(("*" | "/") factor)*
factor ::= identifier | [0-9]+ | "-" factor | "(" ws expression ws ")"
comment ::= "/*" ( [^*] | ("*" [^/]) )* "*/"
ws ::= ([ \t
]+)"""

ALLOWS = [
    ('root ::= "a" | "b"', ["a", "b"], ["", "ab", "c"]),
    ('root ::= first second\nfirst ::= "a"\n\n# between\nsecond ::= "b"', ["ab"], ["a", "b"]),
    ('root ::= "a"\n  | "b" |\n  "c"', ["a", "b", "c"], ["d"]),
    ("root ::= [a-c] [^x] .", ["ay\n", "b漢😀"], ["axz", "dyz", "ay"]),
    ('root ::= "a"? "b"* "c"+', ["c", "abbcc"], ["a", "aac"]),
    ('root ::= "a"{2} "b"{1,2} "c"{2,}', ["aabcc", "aabbccc"], ["aabc", "abcc", "aabbbcc"]),
    (r'root ::= "\x41\u00e9\U0001F600\n\"\\"', ['Aé😀\n"\\'], ["A"]),
    (r"root ::= [\]\-\\^]+", ["]-\\^"], ["a"]),
    ("root ::= [-a] [a-] [^-^]", ["--b", "aab"], ["b", "-b-"]),
    ('root ::= "line\nbreak" [\t]', ["line\nbreak\t"], ["line break\t"]),
    ('root ::= ("ab"\n  "c" # inside\n)+', ["abc", "abcabc"], ["ab"]),
    ('root ::= my-rule my_rule2\nmy-rule ::= "a"\nmy_rule2 ::= "b"', ["ab"], []),
    ('root ::= "" | "a"', ["", "a"], ["b"]),
    ('root ::= "(" root? ")"', ["()", "((()))"], ["(", "())"]),
    # A rule may start with itself.
    ('root ::= a\na ::= a "x" | b? a | "y"\nb ::= "z"', ["y", "yxx", "zyx"], ["x", "yz"]),
    ('root ::= root "+" root | "(" root ")" | [0-9]+', ["12", "1+(2+3)+4"], ["+1", "1+", "(1"]),
    # Readings multiply in these, unless they are written anew.
    ('root ::= ([a-z]+ " "*)* "!"', ["ab c!", "!"], ["ab c", " !"]),
    ('root ::= ("a"? "b"?)* "c"', ["c", "abbac"], ["ca"]),
    ('root ::= (([a-z]+)+)+ ","', ["abc,"], [","]),
    ("root ::= (([^a]{1,2} | [b-d])* [😀]){2}", ["😀😀", "bc😀d😀"], ["a😀😀", "b"]),
    (
        CHESS,
        ["1. e4 e5\n2. Nf3 Nc6\n", "1. O-O O-O-O\n12. exd5 e8=Q+\n"],
        ["1. e4 e5\n", "1. e9 e5\n2. a1 a2\n"],
    ),
    (SPEECH, ["こんにちは、 清水寺"], ["hello", "こ "]),
    (PROGRAM, ["char\nc(){return 2*(  a );}", "", "int f(){/* * */}"], ["int f()", "float f(){}"]),
]


@pytest.mark.parametrize(("grammar", "good", "bad"), ALLOWS)
def test_a_grammar_allows_what_it_says(grammar, good, bad):
    told = written(read_gbnf(grammar))
    assert [text for text in good if not accepts(told, text)] == []
    assert [text for text in bad if accepts(told, text)] == []


WRONG = [
    ("", "it has no rules"),
    ("# nothing", "it has no rules"),
    ('start ::= "a"', "there is no rule 'root'"),
    ('root ::= "a" other', "line 1, column 14: there is no rule 'other'"),
    ('root ::= "a"\nunused ::= missing', "line 2, column 12: there is no rule 'missing'"),
    ('root ::= "a"\nroot ::= "b"', "line 2, column 1: there are two rules 'root'"),
    ('root = "a"', "line 1, column 6: '=' has no meaning here"),
    ('root "a"', 'line 1, column 6: expected ::=, found "a"'),
    (
        'root ::= ("a"\n"b"',
        "line 2, column 4: expected the ) of the ( of line 1, found the end of the grammar",
    ),
    ('root ::= "a")', "line 1, column 13: expected the end of the rule, found )"),
    ('root ::= "a"\n  "b"', 'line 2, column 3: expected the name of a rule, found "b"'),
    ('root ::= "a', 'line 1, column 10: a text that is not closed with "'),
    ("root ::= [a", "line 1, column 10: a class that is not closed with ]"),
    ("root ::= []", "line 1, column 10: a class must hold a character"),
    ("root ::= [z-a]", "line 1, column 10: the range from 'z' to 'a' is empty"),
    (r'root ::= "ab\q"', r"line 1, column 13: there is no escape \q"),
    (r'root ::= "\ud800"', "line 1, column 11: there is no character U+D800"),
    (r'root ::= "\U00110000"', "line 1, column 11: there is no character U+110000"),
    (r'root ::= "\x4"', r"line 1, column 11: there is no escape \x"),
    ('root ::= "a"{x}', "line 1, column 13: a repetition must be {m}, {m,} or {m,n}"),
    ('root ::= "a"{3,2}', "line 1, column 13: a repetition must go from few to many, and reach 1"),
    ('root ::= "a"{1001}', "line 1, column 13: a repetition may count to 1000 at most"),
    ('root ::= "a"+*', "line 1, column 14: a repetition is repeated; put it into parentheses"),
    ('root ::= * "a"', "line 1, column 10: expected the end of the rule, found *"),
    ('root ::= root root | "a"', "line 1, column 1: rule 'root': its recursion can be read in too many ways"),
    (
        'root ::= "!"? b "c"\nb ::= "x"? root',
        "line 1, column 1: rule 'root': no text that ends could fulfil it",
    ),
    ('root ::= "a" root', "line 1, column 1: rule 'root': no text that ends could fulfil it"),
    (
        'root ::= e* "x"\ne ::= "(" e ")" | ""',
        "line 1, column 1: rule 'root': it repeats something that may be",
    ),
    (
        "root ::= ([a-z]{1,50}){1,50}",
        "line 1, column 1: rule 'root': its repetitions can be read in too many",
    ),
    ('root ::= (("a"{900} "b"){900} "c"){900}', "it is too large with its repetitions written out"),
    ("root ::= " + "(" * 60 + '"a"' + ")" * 60, "line 1, column 60: groups are nested more than 50 deep"),
    ("\n".join(f'r{index} ::= "a"' for index in range(501)), "it has more than 500 rules"),
    ("#" * 40_000, "it is longer than 32768 characters"),
]


@pytest.mark.parametrize(("grammar", "message"), WRONG)
def test_what_is_wrong_is_told_with_its_place(grammar, message):
    with pytest.raises(GbnfError) as refused:
        read_gbnf(grammar)
    assert str(refused.value).startswith(message)


def test_choices_that_never_end_are_left_out():
    told = written(read_gbnf('root ::= "a" loop | "b" loop? | "c"\nloop ::= "x" loop'))
    assert accepts(told, "b")
    assert accepts(told, "c")
    assert not Follower(told).take(ord("a"))


LENGTH = 1000
HOSTILE = [
    ('root ::= ([a-z]+)* "!"', "a"),
    ('root ::= (([a-z]*)*)* "!"', "a"),
    ('root ::= ("a"* "b"*)* "!"', "a"),
    ('root ::= (word space?)* "!"\nword ::= [a-z]+\nspace ::= " "+', "a"),
    ('root ::= ("a" | "a" "a" | "aaa")* "!"', "aaaaaa"),
    ('root ::= [a-z]* [a-z]* [a-z]* [a-z]* "!"', "a"),
    ('root ::= "a" root | "b"', "a"),
    ('root ::= "(" root* ")"', "("),
    ('root ::= [a-z]{0,5} [a-z]{0,1000} "!"', "a"),
    ('root ::= ("- " [a-z]{1,20} ";"){1,150}', "- aaaa;"),
    ('root ::= "<" [^>]{1,500} ">" [a-z]{1,1000}', "<aaa>" + "a" * 995),
]


@pytest.mark.timeout(60)  # each takes less than half a second
@pytest.mark.parametrize(("grammar", "more"), HOSTILE)
def test_no_answer_takes_ever_longer_to_follow(grammar, more):
    follower = Follower(written(read_gbnf(grammar)))
    for byte in (more * 1000)[:LENGTH].encode():
        assert follower.take(byte)
        assert follower.allowed() != [END]


ENDLESS_READING = [
    "root ::= " + "(" * 20_000,
    "root ::= " + "[a-z]" * 6000,
    "root ::= " + '"a" | ' * 5000 + '"b"',
    "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(400)) + '\nr400 ::= "a"',
    "root ::= (r0*)*\n" + "\n".join(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(60)) + '\nr60 ::= "a"',
    "root ::= r399\n"
    + "\n".join(f'r{n} ::= r{n - 1} | "{n}"' for n in range(399, 0, -1))
    + '\nr0 ::= root "x"',
    "root ::= (" + " ".join("[a-z]*" for _ in range(4000)) + ")*",
    "root ::= ((.{0,9} [ab])* (.{0,9} [bc])*)*",
    "root ::= ([^a] | [^b] | [^c])* " + '"\\\\' * 5000,
]


@pytest.mark.parametrize("grammar", ENDLESS_READING)
def test_reading_a_grammar_takes_no_time_to_speak_of(grammar):
    def read():
        try:
            written(read_gbnf(grammar))
        except GbnfError as error:
            assert str(error)

    assert calls_of(read) < 2_000_000


def test_a_rule_that_was_made_on_the_way_is_told_as_the_one_it_was_made_of(monkeypatch):
    def blame(rules):
        raise GrammarError("its recursion can be read in too many ways", "word 1 2")

    monkeypatch.setattr(gbnf, "require_moderate", blame)
    with pytest.raises(GbnfError, match=r"^line 2, column 1: rule 'word': its recursion"):
        read_gbnf('root ::= "<" word\nword ::= [a-z] word | ">"')
