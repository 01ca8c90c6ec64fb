"""The JSON texts that an answer may be: any value, or what a read schema allows.

Everything is finite but for the values themselves: whitespace is one space, or one line break with an
indentation; numbers have as many digits as a double tells apart; strings hold no half surrogates, so that
every reader takes them.
"""

from __future__ import annotations

import json

from gateway.constraints.grammar import (
    Chars,
    Either,
    Expression,
    Name,
    Repeat,
    Text,
    chars,
    either,
    optional,
    sequence,
)

DIGIT, HEX = chars("0-9"), chars("0-9a-fA-F")
INDENTATION = 40
SPACE = optional(either(" ", sequence("\n", Repeat(chars(" \t"), 0, INDENTATION))))
NOT_PLAIN = ((0, 0x1F), (ord('"'), ord('"')), (ord("\\"), ord("\\")))
PLAIN = Chars(NOT_PLAIN, negated=True)
CODE = either(
    sequence(chars("0-9a-ce-fA-CE-F"), Repeat(HEX, 3, 3)), sequence(chars("dD"), chars("0-7"), HEX, HEX)
)
ESCAPE = sequence("\\", either(chars('"\\/bfnrt'), sequence("u", CODE)))
CHARACTER = either(PLAIN, ESCAPE)
COUNT = sequence(chars("1-9"), Repeat(DIGIT, 0, 14))
WHOLE = either("0", COUNT)
FRACTION = sequence(".", Repeat(DIGIT, 1, 15))
EXPONENT = sequence(chars("eE"), optional(chars("+-")), Repeat(DIGIT, 1, 2))
UNSIGNED = sequence(WHOLE, Repeat(FRACTION, 0, 1), Repeat(EXPONENT, 0, 1))
NUMBERS: dict[tuple[str, int | None], Expression] = {
    ("integer", None): sequence(optional("-"), WHOLE),
    ("integer", 0): WHOLE,
    ("integer", 1): COUNT,
    ("number", None): sequence(optional("-"), UNSIGNED),
    ("number", 0): UNSIGNED,
}
DAYS = (sequence("0", chars("1-9")), sequence(chars("1-2"), DIGIT))
DAY_OF_MONTH = either(
    sequence(either("01", "03", "05", "07", "08", "10", "12"), "-", either(*DAYS, "30", "31")),
    sequence(either("04", "06", "09", "11"), "-", either(*DAYS, "30")),
    sequence("02-", either(*DAYS)),
)
DATE = sequence(Repeat(DIGIT, 4, 4), "-", DAY_OF_MONTH)
HOUR = either(sequence(chars("01"), DIGIT), sequence("2", chars("0-3")))
SIXTY = sequence(chars("0-5"), DIGIT)
ZONE = either("Z", sequence(chars("+-"), HOUR, ":", SIXTY))
TIME = sequence(HOUR, ":", SIXTY, ":", SIXTY, optional(".", Repeat(DIGIT, 1, 6)), ZONE)
BYTE = either(
    DIGIT,
    sequence(chars("1-9"), DIGIT),
    sequence("1", DIGIT, DIGIT),
    sequence("2", chars("0-4"), DIGIT),
    sequence("25", chars("0-5")),
)
FORMATS: dict[str, Expression] = {
    "date": DATE,
    "time": TIME,
    "date-time": sequence(DATE, "T", TIME),
    "uuid": sequence(
        *(part for count in (8, 4, 4, 4) for part in (Repeat(HEX, count, count), "-")), Repeat(HEX, 12, 12)
    ),
    "ipv4": sequence(BYTE, ".", BYTE, ".", BYTE, ".", BYTE),
}
ANY_OBJECT = Name("object")


def any_value() -> dict[str, Expression]:
    """Rules for any JSON value: `value`, `object`, `array`, `string`, `character` and `space`."""
    return {
        "value": Either(
            (
                ANY_OBJECT,
                Name("array"),
                Name("string"),
                NUMBERS["number", None],
                *map(Text, ("true", "false", "null")),
            )
        ),
        "object": members(sequence(Name("string"), ":", Name("space"), Name("value"))),
        "array": sequence("[", Name("space"), optional(listed(Name("value")), Name("space")), "]"),
        "string": sequence('"', Repeat(Name("character")), '"'),
        "character": CHARACTER,
        "space": SPACE,
    }


def listed(item: Expression, least: int = 1, most: int | None = None) -> Expression:
    """One item or more, with commas."""
    more = None if most is None else most - 1
    if more == 0:
        return item
    return sequence(item, Repeat(sequence(",", Name("space"), item), max(0, least - 1), more))


def members(member: Expression) -> Expression:
    return sequence("{", Name("space"), optional(listed(member), Name("space")), "}")


def literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
