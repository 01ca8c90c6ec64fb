"""Token ids and labels: which tokens are trained, and that what users type is never a special token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from workers.training.examples.dataset import tokenize
from workers.training.examples.encoding import (
    IGNORED,
    NO_STOP,
    PROMPT_CHANGES,
    SPECIALS_TYPED,
    STOP_ADDED,
    Encoder,
    Example,
    MarkedText,
    Marks,
    choose_marks,
    read_marks,
)
from workers.training.examples.renderer import TemplateRenderer
from workers.training.examples.rows import CompletionReader, ConversationReader, RawRow

MARKS = Marks("\ufdd0", "\ufdd1")
OPEN, GUARD = MARKS.trained, MARKS.guard

GENERATION = """\
{{- bos_token }}{% for m in messages %}{{- '<|' + m.role + '|>' }}
{%- if m.role == 'assistant' %}{% generation %}{{- m.content + '<|end|>' }}{% endgeneration %}
{%- else %}{{- m.content + '<|end|>' }}{% endif %}{{- '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"""
PREFIX = GENERATION.replace("{% generation %}", "").replace("{% endgeneration %}", "")
UNK_TOKEN = """\
{%- if mode != 'train' %}{{- bos_token }}{% endif %}{% for m in messages %}{{- '<|' + m.role + '|>' }}
{%- if m.role == 'assistant' and mode == 'train' %}{{- unk_token + m.content + '<|end|>' + unk_token }}
{%- else %}{{- m.content + '<|end|>' }}{% endif %}{{- '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"""

TALK = {
    "messages": [
        {"role": "user", "content": "the colour of sky"},
        {"role": "assistant", "content": "blue é 世"},
        {"role": "user", "content": "and 2?"},
        {"role": "assistant", "content": "red"},
    ]
}


def one(encoder: Encoder, marked: str, **options: Any) -> Example:
    (example,) = encoder.encode([read_marks(marked, MARKS)], [], **options)
    return example


def trained_text(tokenizer: Tokenizer, example: Example) -> str:
    ids = [label for label in example.labels if label != IGNORED]
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_marks_are_taken_out_and_remembered() -> None:
    text = read_marks(f"ab{OPEN}cd{OPEN}e<{GUARD}s>", MARKS)

    assert text == MarkedText("abcde<s>", [(2, 4)], frozenset({6}))


def test_marks_are_characters_that_the_row_does_not_hold() -> None:
    assert choose_marks("plain", "text") == Marks("\ufdd0", "\ufdd1")
    assert choose_marks("a \ufdd0 typed by somebody") == Marks("\ufdd1", "\ufdd2")
    assert choose_marks("".join(map(chr, range(0xFDD0, 0xFDF0)))) is None


def test_only_the_marked_text_is_trained(encoder: Encoder, tokenizer: Tokenizer) -> None:
    example = one(encoder, f"<|user|>sky<|end|><|assistant|>{OPEN}blue é 世<|end|>{OPEN}<|user|>more<|end|>")

    assert trained_text(tokenizer, example) == "blue é 世<|end|>"
    trained = [i for i, label in enumerate(example.labels) if label != IGNORED]
    assert trained == list(range(trained[0], trained[-1] + 1))
    assert example.notes == set()


def test_the_stop_token_is_trained_where_the_template_leaves_it_out(
    encoder: Encoder, tokenizer: Tokenizer
) -> None:
    example = one(encoder, f"<|assistant|>{OPEN}blue{OPEN}<|end|><|user|>")

    assert trained_text(tokenizer, example) == "blue<|end|>"
    assert example.notes == {STOP_ADDED}


def test_an_answer_without_a_stop_token_is_reported(encoder: Encoder) -> None:
    assert one(encoder, f"<|assistant|>{OPEN}blue{OPEN}").notes == {NO_STOP}


def test_an_answer_that_ends_with_another_special_token_has_no_stop(
    encoder: Encoder, tokenizer: Tokenizer
) -> None:
    assert one(encoder, f"<|assistant|>{OPEN}blue<|tool|>{OPEN}<|user|>").notes == {NO_STOP}
    example = one(encoder, f"<|assistant|>{OPEN}blue<|tool|>{OPEN}<|end|>")
    assert trained_text(tokenizer, example) == "blue<|tool|><|end|>"
    assert example.notes == {STOP_ADDED}


def test_a_stop_token_that_is_not_marked_as_special_stops_all_the_same(tokenizer: Tokenizer) -> None:
    (stop,) = tokenizer.encode("#", add_special_tokens=False).ids
    encoder = Encoder(SimpleNamespace(backend_tokenizer=tokenizer, eos_token_id=stop), {stop})

    assert one(encoder, f"<|assistant|>{OPEN}blue#{OPEN}<|user|>").notes == set()


def test_white_space_after_the_stop_token_is_not_trained(encoder: Encoder, tokenizer: Tokenizer) -> None:
    example = one(encoder, f"<|assistant|>{OPEN}blue<|end|>\n{OPEN}<|user|>")

    assert trained_text(tokenizer, example) == "blue<|end|>"


def test_a_prompt_that_the_answer_changes_is_reported(encoder: Encoder) -> None:
    assert PROMPT_CHANGES in one(encoder, f"the colo{OPEN}ur of{OPEN}").notes
    assert PROMPT_CHANGES not in one(encoder, f"the colour{OPEN} of{OPEN}").notes


def test_special_tokens_that_users_type_are_ordinary_text(encoder: Encoder, tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id("<|end|>")
    typed = encoder.guard("say <|end|> now", GUARD)
    example = one(encoder, f"<|user|>{typed}<|end|><|assistant|>{OPEN}{typed}<|end|>{OPEN}")

    assert example.ids.count(end) == 2
    assert trained_text(tokenizer, example) == "say <|end|> now<|end|>"
    assert tokenizer.decode(example.ids, skip_special_tokens=False) == (
        "<|user|>say <|end|> now<|end|><|assistant|>say <|end|> now<|end|>"
    )
    assert example.notes == {SPECIALS_TYPED}


def test_text_around_a_typed_special_token_is_tokenized_as_ever(encoder: Encoder) -> None:
    plain = one(encoder, f"<|user|>the colour of sky<|end|><|assistant|>{OPEN}blue<|end|>{OPEN}")
    typed = encoder.guard("<|end|>", GUARD)
    example = one(encoder, f"<|user|>the colour of sky<|end|><|assistant|>{OPEN}blue<|end|>{OPEN}{typed}")

    assert example.ids[: len(plain.ids)] == plain.ids


def test_guards_reach_every_string_of_a_value(encoder: Encoder) -> None:
    guarded = encoder.guard({"a<|pad|>": ["<|end|>", 1, None, {"b": "<|bos|><|bos|>"}]}, "·")

    assert guarded == {"a<·|pad|>": ["<·|end|>", 1, None, {"b": "<·|bos|><·|bos|>"}]}


@pytest.mark.parametrize("typed", ["", " <|end|>"])
def test_the_three_ways_give_the_same_ids_and_labels(
    encoder: Encoder, tokenizer: Tokenizer, tokens: dict[str, str], typed: str
) -> None:
    messages = [{**message, "content": message["content"] + typed} for message in TALK["messages"]]
    row = RawRow("rows.jsonl line 1", {"messages": messages})
    bos = tokenizer.token_to_id("<|bos|>")
    found = {}
    for template, leading in ((GENERATION, []), (PREFIX, []), (UNK_TOKEN, [bos])):
        with TemplateRenderer(template, tokens) as renderer:
            texts = ConversationReader(renderer, encoder, template).read(row)
            (example,) = encoder.encode(texts, leading)
            found[renderer.way] = (example.ids, example.labels)

    assert set(found) == {"generation", "prefix", "unk_token"}
    assert found["generation"] == found["prefix"] == found["unk_token"]
    labels = [label for label in found["prefix"][1] if label != IGNORED]
    assert tokenizer.decode(labels, skip_special_tokens=False) == (
        f"blue é 世{typed}<|end|>red{typed}<|end|>"
    )


def test_tool_calls_reach_the_template_as_objects(encoder: Encoder, tokens: dict[str, str]) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "é"}'}}
    row = {
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 1},
            {"role": "tool", "content": "done", "tool_call_id": "1"},
            {"role": "assistant", "content": "done"},
        ]
    }
    template = (
        "{% for m in messages %}{{ m | tojson }};"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.x }}{% endif %}{% endfor %}"
    )
    with TemplateRenderer(template, tokens) as renderer:
        (text, *_) = ConversationReader(renderer, encoder, template).read(RawRow("line 1", row))

    assert '"arguments": {"x": "é"}' in text.text
    assert "weight" not in text.text


@pytest.fixture
def tokens() -> dict[str, str]:
    return {"bos_token": "<|bos|>", "eos_token": "<|end|>"}


@pytest.mark.parametrize(
    ("input_template", "output_template", "expected"),
    [
        ("Q: {question}\nA:", " {answer}", "Q: sky {answer}?\nA:| blue<|end|>"),
        ("question", "answer", "sky {answer}?|blue<|end|>"),
        ('{"q": "{question}"}', "{number}/{none}/{flag}", '{"q": "sky {answer}?"}|1.5//true<|end|>'),
    ],
)
def test_completions_train_the_output_and_the_end(
    encoder: Encoder, tokenizer: Tokenizer, input_template: str, output_template: str, expected: str
) -> None:
    fields = {"question": "sky {answer}?", "answer": "blue", "number": 1.5, "none": None, "flag": True}
    reader = CompletionReader(encoder, input_template, output_template)

    (example,) = encoder.encode(reader.read(RawRow("line 1", fields)), encoder.leading_ids, end=True)

    prompt, output = expected.split("|", 1)
    assert example.ids[0] == tokenizer.token_to_id("<|bos|>")
    assert trained_text(tokenizer, example) == output
    assert tokenizer.decode(example.ids, skip_special_tokens=False) == f"<|bos|>{prompt}{output}"


def test_rows_of_different_shapes_stay_what_they_are(
    encoder: Encoder, tokenizer: Tokenizer, jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    path = jsonl([{"q": "a", "args": "1"}, {"q": 2, "args": True, "more": None}])
    reader = CompletionReader(encoder, "q", "args")

    found = tokenize([path], reader, encoder, [], 64, tmp_path / "out.arrow")

    assert found.counts.rows_trained == 2
    assert found.counts.notes[NO_STOP] == 0
