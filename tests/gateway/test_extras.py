"""What is told besides the answer, of answers as the engine gives them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.answers import Shaper
from gateway.dialect import translate_chat, translate_completion
from gateway.extras import ExtraTeller
from gateway.metering import Tokens

QUESTION = [{"role": "user", "content": "count"}]
RENDERED = "<|user|>count<|assistant|>"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
METRICS = {"time_to_first_token_ms": 12.5, "generation_time_ms": 30.0, "queue_time_ms": 0.5}


def shaper(translate: Any, **asked: Any) -> Shaper:
    request = translate({"model": "m", **asked}, 128)
    tokens = Tokens(request.body.get("n", 1))
    extras = ExtraTeller(request.extras, request.body, tokens) if request.extras else None
    return Shaper("m", tokens, include_usage=request.include_usage, extras=extras)


def chat(**asked: Any) -> Shaper:
    return shaper(translate_chat, messages=QUESTION, **asked)


def completion(**asked: Any) -> Shaper:
    return shaper(translate_completion, **{"prompt": "count", **asked})


def whole(*texts: str, **more: Any) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop", "token_ids": [i, 7]}
        for i, text in enumerate(texts)
    ]
    prompt = {"prompt_text": RENDERED, "prompt_token_ids": [1, 2, 3]}
    return {"choices": choices, "usage": dict(USAGE), "metrics": METRICS, **prompt, **more}


def stream() -> list[dict[str, Any]]:
    def piece(finish: str | None, ids: list[int], **delta: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "token_ids": ids}]}

    first = {**piece(None, [], role="assistant", content=""), "prompt_text": RENDERED}
    return [
        {**first, "prompt_token_ids": [1, 2, 3]},
        piece(None, [8], content="one"),
        piece("stop", [9], content=" two"),
        {"choices": [], "usage": dict(USAGE), "metrics": METRICS},
    ]


def told(made: Shaper) -> list[dict[str, Any]]:
    return [chunk for event in stream() for chunk in made.chunk(event)] + list(made.end())


def test_a_chat_tells_its_prompt_before_each_answer():
    answer = chat(echo=True, n=2).whole(whole("one", "two"))
    assert [each["message"]["content"] for each in answer["choices"]] == [RENDERED + "one", RENDERED + "two"]
    assert not {"prompt_text", "prompt_token_ids"} & answer.keys()


def test_a_streamed_chat_tells_its_prompt_once_and_first():
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in told(chat(echo=True, stream=True))]
    assert texts == [RENDERED, "one", " two"]


def test_the_raw_output_has_the_prompt_and_the_completion_as_text_and_tokens():
    made = chat(raw_output=True, response_format={"type": "grammar", "grammar": 'root ::= "one"'})
    [choice] = made.whole(whole("one"))["choices"]
    raw = choice["raw_output"]
    assert raw.pop("grammar").startswith("root ::=")
    assert raw == {
        "prompt_fragments": [RENDERED],
        "prompt_token_ids": [1, 2, 3],
        "completion": "one",
        "completion_token_ids": [0, 7],
    }
    assert "token_ids" not in choice, "nobody asked for them by themselves"


def test_a_stream_tells_the_raw_output_with_its_end():
    *before, last = told(chat(raw_output=True, stream=True))
    assert not any("raw_output" in chunk["choices"][0] for chunk in before)
    raw = last["choices"][0]["raw_output"]
    assert (raw["completion"], raw["completion_token_ids"]) == ("one two", [8, 9])
    assert raw["prompt_fragments"] == [RENDERED]


@pytest.mark.parametrize(
    ("prompt", "n", "fragments"),
    [
        ("count", 2, [["count"], ["count"]]),
        (["a", "b"], 1, [["a"], ["b"]]),
        ([5, 6], 2, [[5, 6], [5, 6]]),
        ([[5], [6]], 1, [[5], [6]]),
    ],
)
def test_a_completions_raw_output_has_its_own_prompt(prompt, n, fragments):
    made = completion(prompt=prompt, raw_output=True, return_token_ids=True, n=n)
    choices = [
        {"index": i, "text": "x", "finish_reason": "stop", "token_ids": [9], "prompt_token_ids": [i]}
        for i in range(2)
    ]
    answer = made.whole({"choices": choices, "usage": dict(USAGE)})
    assert [each["raw_output"]["prompt_fragments"] for each in answer["choices"]] == fragments
    assert answer["choices"][1]["token_ids"] == [9], "they were asked for by themselves"


def test_what_it_took_is_told_in_the_answer_and_in_a_streams_last_chunk():
    expected = {
        "prompt-tokens": 3,
        "cached-prompt-tokens": 1,
        "server-time-to-first-token": 0.0125,
        "prefill-queue-duration": 0.0005,
        "generation-duration": 0.03,
    }
    answer = chat(perf_metrics_in_response=True).whole(whole("one"))
    *before, last = told(chat(perf_metrics_in_response=True, stream=True))
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    *_, usage_chunk = told(chat(perf_metrics_in_response=True, **with_usage))
    for each in (answer, last, usage_chunk):
        metrics = each["perf_metrics"]
        assert metrics.pop("server-processing-time") >= 0
        assert metrics == expected
    assert not any("perf_metrics" in chunk for chunk in before)


def test_several_choices_have_no_durations_of_their_own():
    answer = chat(perf_metrics_in_response=True, n=2).whole(whole("one", "two", metrics=None))
    assert "generation-duration" not in answer["perf_metrics"]


def test_a_completions_logprobs_can_be_told_in_the_shape_of_a_chats():
    old = {
        "tokens": ["one", " two"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"one": -0.5, "a": -2.0}, {" two": -1.0}],
        "text_offset": [0, 3],
    }
    choice = {"index": 0, "text": "one two", "finish_reason": "stop", "token_ids": [8, 9], "logprobs": old}
    answer = completion(logprobs=True, top_logprobs=1).whole({"choices": [choice], "usage": dict(USAGE)})
    first, second = answer["choices"][0]["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["token_id"], first["text_offset"]) == ("one", -0.5, 8, 0)
    assert first["bytes"] == [111, 110, 101]
    assert [top["token"] for top in first["top_logprobs"]] == ["one", "a"]
    assert (second["token_id"], second["text_offset"]) == (9, 3)


def test_with_an_echo_the_logprobs_of_the_prompt_are_told_with_its_tokens():
    old = {"tokens": ["a", "b", "c"], "token_logprobs": [None, -1.0, -2.0], "top_logprobs": [None, {}, {}]}
    choice = {"index": 0, "text": "abc", "token_ids": [3], "prompt_token_ids": [1, 2], "logprobs": old}
    made = completion(logprobs=True, echo=True, max_tokens=1)
    answer = made.whole({"choices": [{**choice, "finish_reason": "length"}], "usage": dict(USAGE)})
    content = answer["choices"][0]["logprobs"]["content"]
    assert [(each["token_id"], each["logprob"]) for each in content] == [(1, None), (2, -1.0), (3, -2.0)]
