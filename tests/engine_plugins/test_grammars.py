"""The time that one answer's grammar may take. A grammar that follows nothing stands in for the engine's own;
tests/gateway asks a real engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workers.engine_plugins.grammars import MOST_SECONDS, SECONDS_PER_TOKEN, Allowance, accepting, bounded


class Grammar:
    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        return tokens != [99]

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        return tokens[:1]

    def rollback(self, tokens: int) -> None:
        pass

    def fill_bitmask(self, bitmask: Any, idx: int) -> None:
        bitmask[idx] = "what may come"


def accept(engine: object, request: Any, tokens: list[int]) -> bool:
    return bool(request.structured_output_request.grammar.accept_tokens("r", tokens))


@pytest.fixture
def request_() -> Any:
    return SimpleNamespace(
        structured_output_request=SimpleNamespace(grammar=bounded(Grammar)()),
        max_tokens=100,
        num_output_tokens=7,
    )


def test_an_allowance_is_spent_by_time_and_refilled_by_tokens_up_to_its_most() -> None:
    allowance, times = Allowance(), iter([10.0, 11.5, 20.0, 20.6])
    with allowance.spending(lambda: next(times)):
        pass
    assert allowance.left == pytest.approx(MOST_SECONDS - 1.5)
    allowance.add(10)
    with allowance.spending(lambda: next(times)):
        pass
    assert allowance.left == pytest.approx(MOST_SECONDS - 2.1 + 10 * SECONDS_PER_TOKEN)
    assert allowance.is_spent
    allowance.add(10**6)
    assert (allowance.left, allowance.is_spent) == (MOST_SECONDS, False)


def test_what_the_engine_does_with_a_grammar_is_paid_for(request_: Any) -> None:
    grammar, mask = request_.structured_output_request.grammar, [""]
    grammar.fill_bitmask(mask, 0)
    assert (mask, grammar.validate_tokens([1, 2])) == (["what may come"], [1])
    assert grammar.allowance.left < MOST_SECONDS


def test_what_is_guessed_is_paid_for_and_only_an_answers_own_tokens_refill(request_: Any) -> None:
    grammar = request_.structured_output_request.grammar
    grammar.allowance.left = 1.0
    for step in (lambda: grammar.accept_tokens("r", [1, 2, 3]), lambda: grammar.rollback(3)):
        before = grammar.allowance.left
        step()
        assert grammar.allowance.left < before
    before = grammar.allowance.left
    assert accepting(accept)(None, request_, [1, 2]) is True
    assert before < grammar.allowance.left <= before + 2 * SECONDS_PER_TOKEN


def test_an_answer_goes_on_while_it_has_an_allowance(request_: Any) -> None:
    step = accepting(accept)
    assert step(None, request_, [1]) is True
    assert step(None, request_, [99]) is False, "the engine's own refusal stays"
    assert (request_.max_tokens, request_.structured_output_request.grammar.is_cut) == (100, False)


def test_one_without_gets_a_single_token_more(request_: Any) -> None:
    grammar = request_.structured_output_request.grammar
    grammar.allowance.left = -1.0
    assert accepting(accept)(None, request_, [1]) is True
    assert (request_.max_tokens, grammar.is_cut) == (8, True)


def test_what_has_no_grammar_is_none_of_its_business() -> None:
    free = SimpleNamespace(structured_output_request=None, max_tokens=100)
    assert accepting(lambda *_: True)(None, free, [1]) is True
    assert free.max_tokens == 100
