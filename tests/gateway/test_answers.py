"""Answers and streams in the callers' shape, and the bytes they come in."""

import pytest

from gateway.answers import MalformedAnswer, Shaper
from gateway.errors import GatewayError
from gateway.incoming import parse_object
from gateway.metering import Tokens, count

NAME = "accounts/acme/models/m"


def a_chunk(index: int, text: str, sent: int, finish: str | None = None) -> dict:
    return {
        "model": "uid",
        "choices": [{"index": index, "text": text, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": sent, "total_tokens": 7 + sent},
    }


def the_end(total: int) -> dict:
    usage = {"prompt_tokens": 7, "completion_tokens": total, "total_tokens": 7 + total}
    return {"model": "uid", "choices": [], "usage": usage}


def shape(chunks: list[dict], **how) -> tuple[list[dict], Tokens]:
    tokens = Tokens()
    shaper = Shaper(NAME, tokens, **how)
    shaped = [out for chunk in chunks for out in shaper.chunk(chunk)]
    return [*shaped, *shaper.end()], tokens


def test_with_several_choices_the_usage_is_on_the_last_finish():
    chunks = [
        a_chunk(0, "a", 1),
        a_chunk(1, "b", 1),
        a_chunk(0, "c", 2, "stop"),
        a_chunk(1, "d", 2),
        a_chunk(1, "e", 3, "length"),
        the_end(5),
    ]
    shaped, tokens = shape(chunks)
    assert [chunk["choices"][0]["text"] for chunk in shaped] == ["a", "b", "c", "d", "e"]
    assert [chunk["usage"] is None for chunk in shaped] == [True, True, True, True, False]
    assert (tokens.prompt, tokens.completion) == (7, 5)


def test_a_stream_that_breaks_off_is_counted_as_far_as_it_came():
    _, tokens = shape([a_chunk(0, "a", 1), a_chunk(0, "c", 2)])
    assert (tokens.prompt, tokens.completion) == (7, 2)


def test_a_stream_of_several_prompts_that_breaks_off_counts_each_prompt_once():
    tokens = Tokens(choices_per_prompt=2)
    shaper = Shaper(NAME, tokens)
    for index in range(4):
        list(shaper.chunk(a_chunk(index, "a", 1)))
    assert (tokens.prompt, tokens.completion) == (14, 4)


def test_offsets_of_logprobs_count_through_a_stream_for_each_choice():
    def with_logprobs(index: int, *texts: str) -> dict:
        content = [{"token": text, "logprob": -1.0, "top_logprobs": []} for text in texts]
        choice = {"index": index, "delta": {}, "finish_reason": None, "logprobs": {"content": content}}
        return {"choices": [choice]}

    chunks = [with_logprobs(0, "ab", "c"), with_logprobs(1, "xyz"), with_logprobs(0, "d")]
    shaped, _ = shape(chunks, legacy_logprobs=True)
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in shaped] == [[0, 2], [0], [3]]


def test_reasoning_has_the_apis_name_and_empty_engine_fields_are_left_out():
    answer = {
        "model": "uid",
        "choices": [{"index": 0, "message": {"content": "x", "reasoning": "why", "audio": None}}],
        "kv_transfer_params": {"a": 1},
    }
    shaped = Shaper(NAME, Tokens()).whole(answer)
    assert shaped == {
        "model": NAME,
        "choices": [{"index": 0, "message": {"content": "x", "reasoning_content": "why"}}],
    }


def test_an_answer_without_choices_is_none():
    with pytest.raises(MalformedAnswer):
        Shaper(NAME, Tokens()).whole({"model": "uid"})


@pytest.mark.parametrize(("value", "counted"), [(3, 3), (-1, 0), (None, 0), ("9", 0), (2**40, 2**31 - 1)])
def test_counts_fit_their_column_whatever_the_engine_sends(value, counted):
    assert count(value) == counted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "levels deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "levels deep"),
    ],
)
def test_a_body_that_is_no_bounded_json_object_is_refused(text, message):
    with pytest.raises(GatewayError) as refused:
        parse_object(text, depth=64)
    assert refused.value.status == 400
    assert message in refused.value.message


def test_a_body_of_the_allowed_depth_is_read():
    assert parse_object(b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}", depth=64)
