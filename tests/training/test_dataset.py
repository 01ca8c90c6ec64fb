"""Datasets become examples: rows are counted in and out, and a bad one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from workers.training.errors import TrainingFailure
from workers.training.examples.dataset import Tokenized, split_rows, tokenize
from workers.training.examples.encoding import IGNORED, Encoder
from workers.training.examples.generic import GENERIC_TEMPLATE
from workers.training.examples.reading import choose_template
from workers.training.examples.renderer import TemplateRenderer
from workers.training.examples.rows import CompletionReader, ConversationReader, read_rows
from workers.training.preflight.findings import Facts, find, refuse

TEMPLATE = (
    "{% for m in messages %}{% if 'boom' in m.content %}{{ raise_exception('no booms here') }}{% endif %}"
    "{% if 'loop' in m.content %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture
def reader(encoder: Encoder) -> Iterator[ConversationReader]:
    with TemplateRenderer(TEMPLATE, {}, row_cpu_seconds=1) as renderer:
        yield ConversationReader(renderer, encoder, TEMPLATE)


@pytest.fixture
def tokenize_rows(
    reader: ConversationReader, encoder: Encoder, jsonl: Callable[..., Path], tmp_path: Path
) -> Callable[..., Tokenized]:
    def run(rows: list[dict[str, Any]], cutoff: int = 64) -> Tokenized:
        return tokenize([jsonl(rows)], reader, encoder, [], cutoff, tmp_path / "out.arrow")

    return run


def judge(tokenized: Tokenized, cutoff: int = 64) -> None:
    """As the trainer does before it loads the model: raises what is wrong with the rows."""
    refuse(find(Facts(tokenized.counts, cutoff=cutoff)))


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_examples_are_written_as_numbers(tokenize_rows: Callable[..., Tokenized]) -> None:
    found = tokenize_rows([chat("sky", "blue"), chat("sun", "amber")])

    table = pa.ipc.open_stream(pa.memory_map(str(found.path))).read_all()
    assert table.column_names == ["input_ids", "labels", "row"]
    assert table.column("row").to_pylist() == [0, 1]
    ids, labels = table.column("input_ids").to_pylist(), table.column("labels").to_pylist()
    assert found.counts.tokens == sum(map(len, ids))
    assert found.counts.trained_tokens == sum(label != IGNORED for row in labels for label in row)
    assert found.counts.longest == max(map(len, ids))


def test_rows_are_cut_dropped_and_counted(tokenize_rows: Callable[..., Tokenized]) -> None:
    rows = [chat("q", "a"), chat("q", "long " * 40), chat("long " * 40, "a")]

    counts = tokenize_rows(rows, cutoff=20).counts

    assert (counts.rows_in, counts.rows_trained, counts.rows_dropped, counts.truncated_rows) == (3, 2, 1, 2)
    assert counts.longest == 20
    assert [finding.told() for finding in find(Facts(counts, cutoff=20))] == [
        f"cut off at 20 tokens: 2 rows, which lose {counts.cut_tokens} tokens "
        "(rows.jsonl line 2; rows.jsonl line 3)",
        "dropped: 1 row, of which nothing to train is left (rows.jsonl line 3)",
    ]


def test_a_job_whose_answers_are_all_cut_off_fails_by_name(tokenize_rows: Callable[..., Tokenized]) -> None:
    with pytest.raises(TrainingFailure, match=r"cut-off length of 10 tokens .* all 2 rows") as caught:
        judge(tokenize_rows([chat("long " * 40, "a"), chat("long " * 50, "b")], cutoff=10), cutoff=10)

    assert caught.value.reason == "ALL_ROWS_TRUNCATED"


def test_an_empty_dataset_fails_by_name(tokenize_rows: Callable[..., Tokenized]) -> None:
    with pytest.raises(TrainingFailure) as caught:
        judge(tokenize_rows([]))

    assert caught.value.reason == "EMPTY_DATASET"


def test_the_row_on_which_the_template_raises_is_named(tokenize_rows: Callable[..., Tokenized]) -> None:
    with pytest.raises(TrainingFailure, match=r"rows.jsonl line 3: .*no booms here") as caught:
        judge(tokenize_rows([chat("a", "b"), chat("c", "d"), chat("boom", "e")]))

    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "TEMPLATE_ERROR")


def test_the_row_on_which_the_template_loops_is_named(tokenize_rows: Callable[..., Tokenized]) -> None:
    with pytest.raises(TrainingFailure, match=r"rows.jsonl line 2: .*does not come to an end"):
        judge(tokenize_rows([chat("a", "b"), chat("loop", "d")]))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"messages": [', "line 2: not JSON"),
        (b'{"prompt": "x"}', "line 2: messages is missing"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "line 2: messages"),
        (b"\xff", "line 2: not UTF-8"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    reader: ConversationReader, encoder: Encoder, tmp_path: Path, line: bytes, complaint: str
) -> None:
    path = tmp_path / "rows.jsonl"
    good = b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
    path.write_bytes(good + line + b"\n")

    with pytest.raises(TrainingFailure, match=complaint):
        judge(tokenize([path], reader, encoder, [], 64, tmp_path / "out.arrow"))


def test_a_field_that_a_row_lacks_is_named(
    encoder: Encoder, jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    path = jsonl([{"q": "a", "a": "b"}, {"q": "c"}])

    with pytest.raises(TrainingFailure, match=r"line 2: the template names the field 'a'"):
        reader = CompletionReader(encoder, "{q}", "{a}")
        judge(tokenize([path], reader, encoder, [], 64, tmp_path / "out.arrow"))


def test_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"b": 2}\n\n')

    assert [(row.place, row.fields) for row in read_rows([path])] == [
        ("rows.jsonl line 1", {"a": 1}),
        ("rows.jsonl line 3", {"b": 2}),
    ]


def test_held_out_rows_are_the_same_for_the_same_seed() -> None:
    rows = list(range(20))

    assert split_rows(rows, 0.15, seed=1) == split_rows(rows, 0.15, seed=1)
    train, held_out = split_rows(rows, 0.15, seed=1)
    assert len(held_out) == 3
    assert sorted(train + held_out) == rows
    assert split_rows(rows, 0.15, seed=2) != (train, held_out)


@pytest.mark.parametrize(("rows", "held_out"), [(1, 0), (2, 1), (3, 1)])
def test_small_datasets_keep_a_row_to_train_on(rows: int, held_out: int) -> None:
    assert len(split_rows(range(rows), 0.01, seed=0)[1]) == held_out
    assert len(split_rows(range(rows), 0.99, seed=0)[0]) >= 1


def test_examples_of_one_row_are_not_parted() -> None:
    train, held_out = split_rows([0, 0, 1, 1, 2, 2, 3, 3], 0.5, seed=3)

    assert {position // 2 for position in train}.isdisjoint({position // 2 for position in held_out})


def test_a_model_without_a_chat_template_gets_the_generic_one() -> None:
    assert choose_template("{{ own }}", "{{ model's }}") == ("{{ own }}", "given")
    assert choose_template(None, "{{ model's }}") == ("{{ model's }}", "of the base model")
    assert choose_template(None, None) == (GENERIC_TEMPLATE, "generic")
