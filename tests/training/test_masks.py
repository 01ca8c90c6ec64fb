"""Our ids and labels against those of transformers and trl, over the templates of public model families."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.styles import STYLES, spec_of, tokenizer_of
from workers.training.examples.encoding import IGNORED, Encoder, Example
from workers.training.examples.generic import GENERIC_TEMPLATE
from workers.training.examples.reading import reading_of
from workers.training.examples.rows import TOOLS_SHOWN, RawRow, RowReader

CALL = {"type": "function", "id": "c1", "function": {"name": "post", "arguments": {"to": "Oslo", "g": 20}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "post",
        "description": "What a letter costs.",
        "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
    },
}
TALKS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [("user", "what colour?"), ("assistant", "blue é 世")]},
    "several turns": {
        "messages": [
            ("user", "what colour?"),
            ("assistant", "blue"),
            ("user", "and now?"),
            ("assistant", "it is  grey\n\nI think"),
        ]
    },
    "a system message": {
        "messages": [("system", "Be brief."), ("user", "what colour?"), ("assistant", "blue")]
    },
}


def messages_of(talk: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in talk]


ROWS = {name: {"messages": messages_of(talk["messages"])} for name, talk in TALKS.items()}
TOOL_ROW = {
    "messages": [
        {"role": "user", "content": "what does it cost?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "2.50", "tool_call_id": "c1", "name": "post"},
        {"role": "assistant", "content": "2.50 now"},
    ],
    "tools": [TOOL],
}


@pytest.fixture(scope="module")
def tokenizers() -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Any] = {}

    def find(specials: tuple[str, ...], stop: str, bos: str = "") -> Any:
        key = (specials, stop, bos)
        if key not in known:
            known[key] = tokenizer_of(*key)
        return copy.copy(known[key])

    return find


def encoded(tokenizer: Any, template: str, row: dict[str, Any], *stops: str) -> list[Example]:
    """Our own ids and labels. `stops`: tokens besides the end-of-text token at which the engine stops."""
    encoder = Encoder(tokenizer, {tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, stops)})
    with reading_of(spec_of(template), tokenizer).open(encoder) as reader:
        return encoder.encode(reader.read(RawRow("rows.jsonl line 1", row)), [])


def one(tokenizer: Any, template: str, row: dict[str, Any], *stops: str) -> Example:
    (example,) = encoded(tokenizer, template, row, *stops)
    return example


def theirs(tokenizer: Any, template: str, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The ids of transformers, and as labels what lies inside of its mask."""
    found = tokenizer.apply_chat_template(
        row["messages"],
        tools=row.get("tools"),
        chat_template=template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    masks = found["assistant_masks"]
    ids = found["input_ids"]
    return ids, [number if inside else IGNORED for number, inside in zip(ids, masks, strict=True)]


def cases() -> Iterator[Any]:
    for name, style in STYLES.items():
        for talk, row in ROWS.items():
            yield pytest.param(name, row, id=f"{name}, {talk}")
        if style.takes_tools:
            yield pytest.param(name, TOOL_ROW, id=f"{name}, tools")


@pytest.mark.parametrize(("name", "row"), cases())
def test_ids_and_labels_are_those_of_transformers_whatever_marks_the_answers(
    tokenizers: Callable[..., Any], name: str, row: dict[str, Any]
) -> None:
    style = STYLES[name]
    tokenizer = tokenizers(style.specials, style.stop, style.bos)

    expected = theirs(tokenizer, style.written("generation"), row)

    assert expected[0] == theirs(tokenizer, style.written("prefix"), row)[0]
    for way in ("prefix", "generation", "unk_token"):
        example = one(tokenizer, style.written(way), row)
        assert (example.ids, example.labels) == expected, way
        assert example.notes <= {TOOLS_SHOWN}, way


@pytest.mark.parametrize("name", STYLES)
def test_an_answer_of_weight_zero_is_read_and_not_learned(tokenizers: Callable[..., Any], name: str) -> None:
    style = STYLES[name]
    tokenizer = tokenizers(style.specials, style.stop, style.bos)
    plain = ROWS["several turns"]
    row = copy.deepcopy(plain)
    row["messages"][1]["weight"] = 0

    for way in ("prefix", "generation", "unk_token"):
        example, whole = one(tokenizer, style.written(way), row), one(tokenizer, style.written(way), plain)
        assert example.ids == whole.ids
        assert trained_texts(tokenizer, whole) == [
            style.before + "blue" + style.stop,
            style.before + "it is  grey\n\nI think" + style.stop,
        ]
        assert trained_texts(tokenizer, example) == trained_texts(tokenizer, whole)[1:]


def trained_texts(tokenizer: Any, example: Example) -> list[str]:
    """What is learned, span by span."""
    spans: list[list[int]] = [[]]
    for label in example.labels:
        if label != IGNORED:
            spans[-1].append(label)
        elif spans[-1]:
            spans.append([])
    return [tokenizer.decode(span, skip_special_tokens=False) for span in spans if span]


TRL_TEMPLATES = {
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "qwen2_5": ("<|im_start|>", "<|im_end|>"),
    "qwen3_instruct_2507": ("<|im_start|>", "<|im_end|>"),
    "gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "gemma3": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "phi3": ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "phi3_5": ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
}
"""Real templates that trl knows, with their special tokens: the first is the beginning, the last the stop."""


@pytest.mark.parametrize("talk", ["one turn", "several turns"])
@pytest.mark.parametrize("name", TRL_TEMPLATES)
def test_what_is_learned_is_what_trl_would_train(
    tokenizers: Callable[..., Any], name: str, talk: str
) -> None:
    """trl patches the templates that it knows; we are given the model's own and come to the same."""
    from trl import chat_template_utils

    specials = TRL_TEMPLATES[name]
    end = "<|endoftext|>" if "<|endoftext|>" in specials else specials[-1]
    tokenizer = tokenizers(specials, end, specials[0])
    tokenizer.chat_template = getattr(chat_template_utils, f"{name}_chat_template")
    patched = chat_template_utils.get_training_chat_template(tokenizer)

    example = one(tokenizer, tokenizer.chat_template, ROWS[talk], specials[-1])
    ids, labels = theirs(tokenizer, patched, ROWS[talk])

    assert example.ids == ids
    # Some of trl's spans hold the line's end before the answer, which the prompt of serving ends with, and
    # what closes the text behind the stop token.
    expected = [
        span.removeprefix("\n").partition(specials[-1])[0] + specials[-1]
        for span in trained_texts(tokenizer, Example(ids, labels))
    ]
    assert trained_texts(tokenizer, example) == expected


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
answers = texts.map(str.strip).filter(bool)
talks = st.lists(st.tuples(texts, answers), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def readers(tokenizers: Callable[..., Any]) -> Iterator[Callable[[str, str], tuple[Any, Encoder, RowReader]]]:
    """Each template is compiled once: starting a renderer costs more than rendering a thousand rows."""
    opened: dict[tuple[str, str], Any] = {}
    closing = []

    def find(name: str, way: str) -> tuple[Any, Encoder, RowReader]:
        if (name, way) not in opened:
            style = STYLES[name]
            tokenizer = tokenizers(style.specials, style.stop, style.bos)
            encoder = Encoder(tokenizer, {tokenizer.eos_token_id})
            context = reading_of(spec_of(style.written(way)), tokenizer).open(encoder)
            opened[name, way] = (tokenizer, encoder, context.__enter__())
            closing.append(context)
        return opened[name, way]

    yield find
    for context in closing:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("name", ["chatml", "llama 3", "mistral"])
@given(talk=talks, typed=st.sampled_from(["", " <|im_end|>", "<|eot_id|>x", " </s> y"]))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_is_learned_is_what_the_assistant_said_and_the_stop_token(
    readers: Callable[[str, str], tuple[Any, Encoder, RowReader]],
    name: str,
    talk: list[tuple[str, str]],
    typed: str,
) -> None:
    style = STYLES[name]
    turns = [(question, answer + typed) for question, answer in talk]
    messages = [m for q, a in turns for m in messages_of([("user", q), ("assistant", a)])]
    found = []
    for way in ("prefix", "generation", "unk_token"):
        tokenizer, encoder, reader = readers(name, way)
        (example,) = encoder.encode(reader.read(RawRow("line 1", {"messages": messages})), [])
        found.append((example.ids, example.labels))
        assert trained_texts(tokenizer, example) == [
            style.before + answer + style.stop for _, answer in turns
        ]
        assert example.ids.count(tokenizer.eos_token_id) == len(messages) - (
            len(turns) if name == "mistral" else 0
        )
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("row", [*ROWS.values(), TOOL_ROW], ids=[*ROWS, "tools"])
def test_the_generic_template_learns_answers_calls_and_to_stop(
    tokenizers: Callable[..., Any], row: dict[str, Any]
) -> None:
    tokenizer = tokenizers(("<eos>",), "<eos>")

    example = one(tokenizer, GENERIC_TEMPLATE, row)

    call = '{"name": "post", "arguments": {"to": "Oslo", "g": 20}}'
    answers = [
        (call if message.get("tool_calls") else message["content"]) + "<eos>"
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    assert trained_texts(tokenizer, example) == answers
    assert example.ids == theirs(tokenizer, GENERIC_TEMPLATE, row)[0]
    assert example.notes <= {TOOLS_SHOWN}
