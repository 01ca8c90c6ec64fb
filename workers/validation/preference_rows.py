"""What a row of a preference dataset must look like: what was asked, a better answer and a worse one.

{"input": {"messages": […], "tools": […]}, "preferred_output": [answer], "non_preferred_output": [answer]}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from controlplane.checks.wording import shown
from workers.validation.jsonl import BadRow
from workers.validation.rows import (
    TOKENS_PER_MESSAGE,
    RowCounts,
    check_message,
    check_messages,
    check_tools,
    list_of_messages,
)

PREFERRED = "preferred_output"
NON_PREFERRED = "non_preferred_output"
INPUT_KEYS = ("messages", "tools")

Found = TypeVar("Found")


def is_preference_row(row: dict[str, Any]) -> bool:
    return PREFERRED in row or NON_PREFERRED in row


def check_preference_row(row: dict[str, Any]) -> RowCounts:
    """Other keys of the row are the owner's own and not looked at.

    What was asked counts twice: each answer is read after it.
    """
    asked = row.get("input")
    if type(asked) is not dict:
        found = f"must be an object with messages, found {shown(asked)}" if "input" in row else "is missing"
        raise BadRow(f"input {found}")
    if unknown := [key for key in asked if key not in INPUT_KEYS]:
        raise BadRow(f"input has an unknown key {shown(unknown[0])}; it has {' and '.join(INPUT_KEYS)}")
    tokens, turns = _in_place("input.", lambda: _check_input(asked))
    better, worse = (_only_answer(row, place) for place in (PREFERRED, NON_PREFERRED))
    for place, answer in ((PREFERRED, better), (NON_PREFERRED, worse)):
        tokens += TOKENS_PER_MESSAGE + _check_answer(place, answer)
    if better == worse:
        raise BadRow(f"{PREFERRED} and {NON_PREFERRED} are the same: there is nothing to prefer")
    return RowCounts(tokens, turns)


def _check_input(asked: dict[str, Any]) -> tuple[int, int]:
    """The estimated tokens, twice, and the user messages."""
    messages = list_of_messages(asked)
    tokens, turns, last = check_messages(messages)
    end = f"messages[{len(messages) - 1}]"
    if last not in ("user", "tool"):
        raise BadRow(f'{end}.role is "{last}"; the input must end where an answer is due')
    for index, message in enumerate(messages):
        _refuse_weight(f"messages[{index}]", message)
    return 2 * (tokens + check_tools(asked)), turns


def _only_answer(row: dict[str, Any], place: str) -> dict[str, Any]:
    answers = row.get(place)
    if type(answers) is not list:
        found = f"must be an array, found {shown(answers)}" if place in row else "is missing"
        raise BadRow(f"{place} {found}")
    if len(answers) != 1:
        raise BadRow(f"{place} holds {len(answers)} messages; it must hold one, of the assistant")
    answer = answers[0]
    if type(answer) is not dict:
        raise BadRow(f"{place}[0] must be an object, found {shown(answer)}")
    return answer


def _check_answer(place: str, answer: dict[str, Any]) -> int:
    """The estimated tokens of an answer."""
    role = answer.get("role")
    if role != "assistant":
        found = f"is {shown(role)}; expected assistant" if "role" in answer else "is missing"
        raise BadRow(f"{place}[0].role {found}")
    _refuse_weight(f"{place}[0]", answer)
    return _in_place(place, lambda: check_message(0, "assistant", answer), of="messages")


def _refuse_weight(place: str, message: dict[str, Any]) -> None:
    if message.get("weight") is not None:
        raise BadRow(
            f"{place}.weight has no effect: of a pair, the two answers are compared and nothing else"
        )


def _in_place(place: str, check: Callable[[], Found], of: str = "") -> Found:
    """What `check` finds; its complaint names the place in the row, in place of `of`."""
    try:
        return check()
    except BadRow as error:
        raise BadRow(place + str(error).removeprefix(of)) from None
