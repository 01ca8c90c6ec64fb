"""Findings from counts alone: each code of the table, and what its owner is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.docs.shown import table_rows
from workers.training.errors import TrainingFailure
from workers.training.examples.counts import Counts, histogram
from workers.training.examples.duplicates import Repeats, repeated_rows, rows_in_both
from workers.training.examples.generic import GENERIC_TEMPLATE
from workers.training.examples.reading import GENERIC, choose_template
from workers.training.examples.rows import TOOLS_SHOWN
from workers.training.preflight.findings import FINDINGS, Facts, find, refuse
from workers.training.preflight.report import reads_calls, require_servable

GUIDE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"
NOTED = "a.jsonl line 2"


def counts(rows: int = 10, note: str = "", **values: Any) -> Counts:
    found = Counts(rows_in=rows, rows_trained=rows, examples=rows, **values)
    found.answers = {b"a", b"b"}
    if note:
        found.note(note, NOTED)
    return found


def failing(code: str) -> Facts:
    found = counts()
    found.fail(code, NOTED, f"{NOTED}: what is wrong there")
    return Facts(found)


REPEATS = Repeats(3, [NOTED])
# Of each finding: facts that lead to it and to no other.
CASES: dict[str, Facts] = {
    "EMPTY_DATASET": Facts(replace(counts(), rows_in=0, rows_trained=0)),
    **{code: failing(code) for code in ("BAD_ROW", "TEMPLATE_ERROR", "FIELD_MISSING", "EMPTY_LABEL")},
    "ALL_ROWS_TRUNCATED": Facts(replace(counts(), rows_trained=0, truncated_rows=10), cutoff=128),
    "NOTHING_TO_TRAIN": Facts(replace(counts(), rows_trained=0)),
    "TOO_MANY_EXAMPLES": Facts(counts(rows=2_000_000), epochs=1.6),
    "CUTOFF_LOWERED": Facts(counts(), cutoff=128, asked_cutoff=256),
    "PROMPT_DIFFERS": Facts(counts(), prompt_differs=True),
    "TOOLS_IN_WORDS": Facts(counts(note=TOOLS_SHOWN), tools_in_words=True),
    "GENERIC_TEMPLATE": Facts(counts(), origin=GENERIC),
    "SAME_ANSWER": Facts(replace(counts(), answers=[b"a"])),
    "DUPLICATE_ROWS": Facts(counts(), repeats=REPEATS),
    "ROWS_IN_BOTH": Facts(counts(), counts(), in_both=REPEATS),
    "ONE_LABEL": Facts(counts(labels=Counter({"good": 10}))),
    "SIMILAR_LABELS": Facts(counts(labels=Counter({"good": 5, "Good ": 5}))),
}
NOTES = FINDINGS.keys() - CASES.keys()


@pytest.mark.parametrize("code", FINDINGS)
def test_each_finding_is_found_when_it_is_so_and_only_then(code: str) -> None:
    facts = CASES.get(code) or Facts(counts(note=code), tokenizer_size=12, vocabulary_size=10)

    (finding,) = find(facts)

    assert finding.code == code
    assert finding.severity == FINDINGS[code].severity
    assert "{" not in finding.sentence + finding.hint
    assert finding.hint
    if code in NOTES:
        assert finding.told().endswith(f"({NOTED})")


def test_the_longest_row_is_told_as_it_is_and_not_as_it_is_drawn() -> None:
    found = counts(note="ROWS_CUT", longest_row=1003, lengths=Counter({1008: 10}))

    assert "the longest row has 1,003 tokens" in find(Facts(found))[0].hint


def test_a_good_dataset_has_no_findings() -> None:
    assert find(Facts(counts(), counts())) == []


def test_all_errors_are_told_at_once_before_all_warnings() -> None:
    found = counts(note="NO_STOP")
    for line in range(1, 21):
        found.fail("BAD_ROW", f"a.jsonl line {line}", f"a.jsonl line {line}: not JSON")
    found.fail("TEMPLATE_ERROR", "a.jsonl line 30", "a.jsonl line 30: no booms")
    facts = Facts(found, epochs=1e6)

    findings = find(facts)

    assert [finding.code for finding in findings] == [
        "BAD_ROW",
        "TEMPLATE_ERROR",
        "TOO_MANY_EXAMPLES",
        "NO_STOP",
    ]
    assert (findings[0].rows, len(findings[0].places)) == (20, 10)
    with pytest.raises(TrainingFailure) as caught:
        refuse(findings)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "BAD_ROW")
    assert caught.value.message.splitlines() == [
        "3 findings:",
        "not a row of this kind of job: 20 rows (a.jsonl line 1: not JSON; a.jsonl line 2: not JSON; "
        "a.jsonl line 3: not JSON; …)",
        "the chat template cannot render: 1 row (a.jsonl line 30: no booms)",
        "examples × epochs is 10,000,000, more than 3,000,000",
    ]


def test_warnings_alone_refuse_nothing() -> None:
    refuse(find(Facts(counts(note="NO_STOP"))))


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    first, second = counts(3, note="NO_STOP", longest=7), counts(2, note="NO_STOP", longest=9)
    first.file_starts, second.file_starts = {"a.jsonl": 0}, {"a.jsonl": 0, "b.jsonl": 3}
    first.digests.extend([1, 2, 1])
    first.row_numbers.extend([0, 1, 2])
    second.digests.extend([2, 5])
    second.row_numbers.extend([3, 4])

    first.add(second)

    assert (first.rows_in, first.longest, first.notes["NO_STOP"]) == (5, 9, 2)
    assert first.places["NO_STOP"] == [NOTED, NOTED]
    assert repeated_rows(first) == Repeats(2, ["a.jsonl line 3", "b.jsonl line 1"])
    assert rows_in_both(first, second) == Repeats(2, ["b.jsonl line 1", "b.jsonl line 2"])


def test_a_histogram_has_a_bar_for_every_row() -> None:
    bars = histogram(Counter({16: 3, 48: 2, 4000: 1}))

    assert len(bars) <= 20
    assert sum(bar["rows"] for bar in bars) == 6
    assert bars[0]["rows"] == 5
    assert bars[-1]["rows"] == 1
    assert {bars[i + 1]["tokens"] - bars[i]["tokens"] for i in range(len(bars) - 1)} == {bars[0]["tokens"]}
    assert histogram(Counter()) == []


def test_the_guide_explains_every_finding_and_no_other() -> None:
    rows = [row for row in table_rows(GUIDE, r"`[A-Z_]+`") if row[1] in ("error", "warning")]
    told = {row[0].strip("`"): row[1] for row in rows}

    assert told.keys() == FINDINGS.keys()
    assert {code: word.upper() for code, word in told.items()} == {
        code: kind.severity for code, kind in FINDINGS.items()
    }


def test_whose_template_it_is() -> None:
    assert choose_template(None, {"default": "{{ a }}", "tool_use": "{{ b }}"})[0] == "{{ a }}"
    assert choose_template(GENERIC_TEMPLATE, None)[1] == GENERIC


def test_what_is_found_in_both_datasets_is_told_of_both() -> None:
    both = Facts(counts(note="ROWS_CUT"), counts(rows=3, note="ROWS_CUT"), cutoff=128)
    train, evaluation = find(both)
    assert (train.code, evaluation.code) == ("ROWS_CUT", "ROWS_CUT")
    assert evaluation.sentence == f"of the evaluation dataset: {train.sentence}"


def test_a_second_answer_is_not_lost_when_counts_are_added_up() -> None:
    whole = Counts()
    for answers in ([b"a"], [b"a", b"b"], [b"c", b"d"]):
        whole.add(Counts(answers=answers))
    assert whole.answers == [b"a", b"b"]


HERMES, MISTRAL = "{{ tools }}<tool_call>", "{{ tools }}[TOOL_CALLS]"


@pytest.mark.parametrize(
    ("template", "of_model", "read"),
    [
        (HERMES, HERMES, True),
        (HERMES + " in words of its own", {"default": HERMES}, True),
        (MISTRAL, HERMES, False),
        (HERMES, None, False),
        (GENERIC_TEMPLATE, None, False),
        ("{{ tools }}", "{{ tools }}", False),
    ],
)
def test_the_engine_reads_the_calls_of_its_base_models_form(
    template: str, of_model: str | dict[str, str] | None, read: bool
) -> None:
    assert reads_calls(template, of_model, "llama") is read


def test_a_template_with_which_the_adapter_would_be_refused_is_refused_before_training() -> None:
    require_servable(GENERIC_TEMPLATE)
    with pytest.raises(TrainingFailure) as caught:
        require_servable("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages[-1].parts[0] }}")
    assert caught.value.reason == "TEMPLATE_ERROR"
    assert caught.value.message.startswith("the chat template cannot be served: line 1: ")
    with pytest.raises(TrainingFailure, match="cannot be served: has 6"):
        require_servable(GENERIC_TEMPLATE + "a" * 65_000)
