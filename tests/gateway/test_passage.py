"""Chunks that are passed on unread: what callers get is what the shaper would have made of them."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.answers import Shaper
from gateway.dialect import translate_chat, translate_completion
from gateway.metering import Tokens
from gateway.passage import Passage, is_plain

NAME = "accounts/acme/models/m"
QUESTION = [{"role": "user", "content": "count"}]


def chunk(told: dict, finish: str | None = None, sent: int = 3, **more) -> dict:
    """A chunk as vLLM writes it."""
    choice = {"index": 0, **told, "logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "total_tokens": 7 + sent, "completion_tokens": sent}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1767225600, "model": "a-uid"}
    return {**frame, "choices": [{**choice, "token_ids": None}], "usage": usage, **more}


def encoded(*chunks: dict) -> bytes:
    texts = [json.dumps(one, separators=(",", ":"), ensure_ascii=False) for one in chunks]
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


def shaped(*chunks: dict) -> tuple[list[dict], Tokens]:
    tokens = Tokens()
    shaper = Shaper(NAME, tokens)
    return [out for one in chunks for out in shaper.chunk(msgspec.json.decode(json.dumps(one)))], tokens


def passed(part: bytes) -> tuple[list[dict], bytes, Tokens]:
    tokens = Tokens()
    taken, rest = Passage(NAME, tokens).take(part)
    events = [event for event in taken.split(b"\n\n") if event]
    return [json.loads(event.removeprefix(b"data: ")) for event in events], rest, tokens


def told(text: str) -> st.SearchStrategy[dict]:
    return st.sampled_from(
        [{"delta": {"content": text}}, {"delta": {"role": "assistant", "content": text}}, {"text": text}]
    )


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text('"\\n:{}[],', max_size=20)


@given(st.lists(texts.flatmap(told), min_size=1, max_size=5))
@example([{"delta": {"content": '"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'}}])
def test_what_is_passed_on_is_what_the_shaper_makes_of_it(tellings):
    chunks = [chunk(telling, sent=number) for number, telling in enumerate(tellings)]
    expected, counted = shaped(*chunks)
    found, rest, tokens = passed(encoded(*chunks))
    assert (found, rest) == (expected, b"")
    assert (tokens.prompt, tokens.completion) == (counted.prompt, counted.completion)


@pytest.mark.parametrize(
    "other",
    [
        chunk({"delta": {"content": "x"}}, finish="stop"),
        chunk({"delta": {"content": "x"}}, system_fingerprint="vllm-1"),
        chunk({"delta": {"reasoning": "x"}}),
        chunk({"delta": {"content": "x", "tool_calls": []}}),
        chunk({"delta": {"content": None}}),
        chunk({"delta": {"content": 5}}),
        {**chunk({"text": "x"}), "choices": []},
        {**chunk({"text": "x"}), "choices": [{"index": 1, "text": "x"}]},
        {"error": {"message": "x"}},
    ],
)
def test_anything_else_is_left_to_the_shaper_with_all_that_follows(other):
    plain = chunk({"delta": {"content": "a"}})
    part = encoded(plain, other, plain)
    found, rest, _ = passed(part)
    assert len(found) == 1
    assert rest == encoded(other, plain)


def test_a_chunk_that_begins_otherwise_than_the_first_is_left_to_the_shaper():
    first, other = chunk({"text": "a"}), chunk({"text": "b"}) | {"id": "chatcmpl-2"}
    found, rest, _ = passed(encoded(first, other, first))
    assert [each["choices"][0]["text"] for each in found] == ["a"]
    assert rest == encoded(other, first)


@pytest.mark.parametrize("broken", [rb"\x", rb"\u12", rb"\ud800", b"\x01", b"\n"])
def test_a_text_that_is_no_json_is_left_to_be_refused(broken):
    part = encoded(chunk({"delta": {"content": "@"}})).replace(b"@", broken)
    assert passed(part)[1] == part


def test_the_usage_of_the_last_chunk_counts():
    _, _, tokens = passed(encoded(*[chunk({"text": "x"}, sent=sent) for sent in (1, 2, 9)]))
    assert (tokens.prompt, tokens.completion) == (7, 9)


@pytest.mark.parametrize(
    ("asked", "plain"),
    [
        ({}, True),
        ({"temperature": 0.5, "stop": ["x"], "max_tokens": 5}, True),
        ({"n": 2}, False),
        ({"logprobs": True}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
    ],
)
def test_only_chats_whose_answers_need_no_shaping_are_plain(asked, plain):
    request = translate_chat({"messages": QUESTION, "stream": True, **asked}, 128)
    assert is_plain(request) is plain


@pytest.mark.parametrize(("prompt", "plain"), [("count", True), (["count", "on"], False), ([1, 2], False)])
def test_only_completions_of_one_text_are_plain(prompt, plain):
    assert is_plain(translate_completion({"prompt": prompt, "stream": True}, 128)) is plain
