"""What callers may send and what the engine gets for it: tables over the pure translation."""

import pytest

from controlplane.checks.tool_calls import call_form
from gateway.dialect import translate_chat, translate_completion
from gateway.errors import GatewayError
from gateway.parameters import BOTH, OF_CHAT, OF_COMPLETIONS, PARAMETERS, Fate

QUESTION = [{"role": "user", "content": "count"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def chat(context_length: int = 4096, **fields):
    return translate_chat({"model": "m", "messages": QUESTION, **fields}, context_length)


def completion(context_length: int = 4096, **fields):
    return translate_completion({"model": "m", "prompt": "count", **fields}, context_length)


TRANSLATED = [
    (chat, {}, {"max_tokens": 2000}),
    (chat, {"max_tokens": 5}, {"max_tokens": 5}),
    (chat, {"max_completion_tokens": 5}, {"max_tokens": 5}),
    (chat, {"max_tokens": 10_000}, {"max_tokens": 4096}),
    (completion, {}, {"max_tokens": 2000}),
    (completion, {"echo": True, "max_tokens": 0}, {"echo": True, "max_tokens": 0}),
    (chat, {"temperature": 0, "top_p": 0.5, "seed": -1}, {"temperature": 0, "top_p": 0.5, "seed": -1}),
    (chat, {"stop": "end"}, {"stop": ["end"]}),
    (chat, {"logit_bias": {"12": -100}}, {"logit_bias": {"12": -100}}),
    (chat, {"temperature": None, "tools": None}, {}),
    (chat, {"user": "u", "metadata": {"a": "b"}, "service_tier": "flex", "prompt_cache_key": "k"}, {}),
    (chat, {"raw_output": False, "echo": False, "typical_p": None}, {}),
    (chat, {"response_format": {"type": "text"}}, {}),
    (chat, {"tools": [], "tool_choice": "auto"}, {}),
    (chat, {"tools": [TOOL], "tool_choice": "none"}, {}),
    # logprobs
    (chat, {"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    (chat, {"logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    (chat, {"logprobs": False}, {}),
    (completion, {"logprobs": 3}, {"logprobs": 3}),
    (completion, {"logprobs": False}, {}),
    (completion, {"logprobs": True, "top_logprobs": 2}, {"logprobs": 2, "return_token_ids": True}),
    # sampling that the engine's plug-in does
    (chat, {"typical_p": 0.5}, {"vllm_xargs": {"typical_p": 0.5}}),
    (chat, {"typical_p": 1}, {}),
    (
        completion,
        {"mirostat_target": 3, "mirostat_lr": 0.2},
        {"vllm_xargs": {"mirostat_target": 3.0, "mirostat_lr": 0.2}},
    ),
    (chat, {"temperature": 0, "typical_p": 0.5}, {"temperature": 0}),
    (chat, {"temperature": 0, "n": 2}, {"temperature": 1.0, "top_k": 1, "n": 2}),
    # what is told besides
    (chat, {"echo": True}, {"return_prompt_text": True}),
    (chat, {"raw_output": True}, {"return_prompt_text": True, "return_token_ids": True}),
    (chat, {"perf_metrics_in_response": True}, {}),
]


@pytest.mark.parametrize(("translate", "sent", "expected"), TRANSLATED)
def test_a_field_reaches_the_engine_as_it_reads_it(translate, sent, expected):
    plain = translate().body
    translated = translate(**sent).body
    assert translated == {**plain, **expected}


EXTRA = "Extra inputs are not permitted, field: 'frobnicate', value: [1]"
WRONG = [
    (chat, {"frobnicate": [1]}, "frobnicate", EXTRA),
    (chat, {"prompt": "x"}, "prompt", "Extra inputs are not permitted, field: 'prompt', value: 'x'"),
    (completion, {"messages": []}, "messages", "Extra inputs"),
    (chat, {"chat_template": "{{ x }}"}, "chat_template", "Extra inputs"),
    (chat, {"frobnicate": None}, "frobnicate", "Extra inputs"),
    (chat, {"best_of": 2}, "best_of", "'best_of' is not supported: use n"),
    (chat, {"echo": True, "logprobs": True}, "logprobs", "told by completions"),
    (chat, {"echo": True, "tools": [TOOL]}, "tools", "in words"),
    (completion, {"echo": True, "raw_output": True}, "echo", "has the prompt already"),
    (chat, {"mirostat_lr": 0.1}, "mirostat_lr", "with 'mirostat_target'"),
    (chat, {"typical_p": 1.1}, "typical_p", "from 0 to 1"),
    (chat, {"prompt_cache_max_len": 5}, "prompt_cache_max_len", "only 0"),
    (chat, {"reasoning_effort": "high"}, "reasoning_effort", "Invalid reasoning effort: high"),
    (chat, {"reasoning_effort": "some"}, "reasoning_effort", "one of none, low, medium, high"),
    (chat, {"reasoning_effort": 100}, "reasoning_effort", "as a number"),
    (chat, {"thinking": {"type": "disabled"}}, "thinking", "Invalid reasoning effort: none"),
    (chat, {"thinking": {"type": "sometimes"}}, "thinking.type", "one of enabled, disabled"),
    (chat, {"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens", "not supported"),
    (chat, {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}, "thinking", "only one of"),
    (chat, {"temperature": 2.1}, "temperature", "from 0 to 2"),
    (chat, {"temperature": True}, "temperature", "must be a number"),
    (chat, {"temperature": "hot"}, "temperature", "must be a number"),
    (chat, {"n": 0}, "n", "from 1 to 128"),
    (chat, {"n": 1.5}, "n", "must be an integer"),
    (chat, {"top_k": 101}, "top_k", "from 0 to 100"),
    (chat, {"frequency_penalty": -3}, "frequency_penalty", "from -2 to 2"),
    (chat, {"seed": 2**63}, "seed", "must be an integer"),
    (chat, {"stop": ["a"] * 5}, "stop", "at most 4"),
    (chat, {"stop": [""]}, "stop", "non-empty"),
    (chat, {"logit_bias": {"a": 1}}, "logit_bias", "must be token ids"),
    (chat, {"logit_bias": {"1": 101}}, "logit_bias.1", "from -100 to 100"),
    (chat, {"stream": "yes"}, "stream", "must be true or false"),
    (chat, {"stream_options": {"include_usage": True}}, "stream_options", "with 'stream'"),
    (chat, {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "Extra inputs"),
    (chat, {"max_tokens": 0}, "max_tokens", "of at least 1"),
    (chat, {"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "only one of"),
    (completion, {"max_tokens": 0}, "max_tokens", "of at least 1"),
    (chat, {"context_length_exceeded_behavior": "explode"}, "context_length_exceeded_behavior", "one of"),
    (chat, {"service_tier": "gold"}, "service_tier", "one of"),
    (chat, {"metadata": {"a": 1}}, "metadata.a", "must be a string"),
    (chat, {"top_logprobs": 2}, "top_logprobs", "with 'logprobs': true"),
    (chat, {"logprobs": 6}, "logprobs", "from 0 to 5"),
    (completion, {"top_logprobs": 2}, "top_logprobs", "with 'logprobs': true"),
    (chat, {"messages": None}, "messages", "at least one message"),
    (chat, {"messages": ["hi"]}, "messages[0]", "must be an object"),
    (chat, {"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "must be one of"),
    (chat, {"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
    (chat, {"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood", "Extra inputs"),
    (chat, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "tool_call_id"),
    (
        chat,
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://10.0.0.1"}}]}]},
        "messages[0].content[0].type",
        "video_url input",
    ),
    (completion, {"prompt": ""}, "prompt", "must be a non-empty string"),
    (completion, {"prompt": []}, "prompt", "must be"),
    (completion, {"prompt": ["a", 1]}, "prompt", "must be"),
    (completion, {"prompt": [1, -2]}, "prompt", "must be"),
    (completion, {"prompt": [[1], []]}, "prompt", "must be"),
]  # fmt: skip


@pytest.mark.parametrize(("translate", "sent", "param", "message"), WRONG)
def test_what_is_wrong_is_refused_by_name(translate, sent, param, message):
    with pytest.raises(GatewayError) as refused:
        translate(**sent)
    assert refused.value.status == 400
    assert refused.value.param == param
    assert message in refused.value.message


REFUSED = [
    (translate, each.name)
    for translate, endpoint in ((chat, "chat"), (completion, "completions"))
    for each in PARAMETERS
    if each.fate is Fate.REFUSED and each.of in (BOTH, endpoint)
]


@pytest.mark.parametrize(("translate", "name"), REFUSED)
def test_what_cannot_be_honoured_is_refused_and_never_ignored(translate, name):
    with pytest.raises(GatewayError, match=f"'{name}' is not supported"):
        translate(**{name: 1})


THINKING = [
    (
        "{{ reasoning_effort }}",
        {"reasoning_effort": "high"},
        {"enable_thinking": True, "reasoning_effort": "high"},
    ),
    ("{% if enable_thinking %}", {"reasoning_effort": "none"}, {"enable_thinking": False}),
    ("{% if enable_thinking %}", {"reasoning_effort": False}, {"enable_thinking": False}),
    ("{% if enable_thinking %}", {"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
    (
        "{% if enable_thinking %}",
        {"thinking": {"type": "enabled"}},
        {"enable_thinking": True, "reasoning_effort": "medium"},
    ),
]


@pytest.mark.parametrize(("template", "asked", "told"), THINKING)
def test_a_template_is_told_how_much_to_think_where_it_can_be(template, asked, told):
    form = call_form(template, "llama", supports_tools=False)
    request = translate_chat({"model": "m", "messages": QUESTION, **asked}, 4096, form=form)
    assert request.body["chat_template_kwargs"] == told


def test_a_prompt_that_is_to_be_in_no_cache_shares_one_with_nobody():
    salts = {completion(prompt_cache_max_len=0).body["cache_salt"] for _ in range(3)}
    assert len(salts) == 3


def test_every_parameter_has_one_fate_at_an_endpoint():
    for known, endpoint in ((OF_CHAT, "chat"), (OF_COMPLETIONS, "completions")):
        assert len(known) == sum(each.of in (BOTH, endpoint) for each in PARAMETERS)


@pytest.mark.parametrize("prompt", ["text", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_every_kind_of_prompt_is_passed_on(prompt):
    assert completion(prompt=prompt).body["prompt"] == prompt


def test_a_stream_always_counts_its_tokens():
    request = chat(stream=True)
    assert request.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert not request.include_usage
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage


def test_a_wish_for_an_error_keeps_the_number_that_was_asked_for():
    wished = {"context_length_exceeded_behavior": "error"}
    assert chat(max_tokens=10_000, **wished).exact_max_tokens == 10_000
    assert chat(max_tokens=10_000).exact_max_tokens is None
    assert chat(**wished).exact_max_tokens is None, "the default is not something the caller asked for"


def test_prompt_caches_are_kept_apart_by_account_and_by_key():
    def salt(scope: str | None, **fields: str) -> str | None:
        sent = {"model": "m", "prompt": "x", **fields}
        return translate_completion(sent, 128, scope).body.get("cache_salt")

    salts = [
        salt(None),
        salt("rival"),
        salt(None, prompt_cache_isolation_key="k"),
        salt("rival", prompt_cache_isolation_key="k"),
        salt("rival", prompt_cache_isolation_key="@/\0" * 1000),
    ]
    assert salts[0] is None
    assert len(set(salts)) == len(salts)
    assert {len(salt) for salt in salts if salt} == {64}
