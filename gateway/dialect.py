"""The request dialects: what callers may send, and what the engine is sent for it.

Every field is one of four things, and no field is accepted and then ignored:
`PASSED` ones mean the same to the engine; the ones with a rule below are translated; `HINTS` may change
where or how fast a request runs, never its answer; `REFUSED` ones are documented by the API but cannot be
honoured, and are refused by name. Any other field is unknown, and refused as the API words it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.checks import (
    Check,
    boolean,
    extra_input,
    integer,
    logit_bias,
    mapping,
    number,
    one_of,
    only,
    stop_strings,
    string,
    string_map,
)
from gateway.errors import invalid, unsupported
from gateway.messages import (
    check_function_call,
    check_functions,
    check_messages,
    check_tool_choice,
    check_tools,
    response_format,
)

DEFAULT_MAX_TOKENS = 2000
"""The API's default; clipped, as any `max_tokens` is, to what the context leaves."""

PASSED: dict[str, Check] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "min_p": number(0, 1),
    "top_k": integer(0, 100),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "repetition_penalty": number(0, 2),
    "n": integer(1, 128),
    "stop": stop_strings,
    "seed": integer(-(2**63), 2**63 - 1),
    "logit_bias": logit_bias,
    "ignore_eos": boolean,
    "return_token_ids": boolean,
}
HINTS: dict[str, Check] = {
    "user": string,
    "metadata": string_map,
    "prompt_cache_key": string,
    "service_tier": one_of("auto", "default", "flex", "priority"),
}
TRANSLATED: dict[str, Check] = {
    "model": string,
    "stream": boolean,
    "max_tokens": integer(0),
    "max_completion_tokens": integer(0),
    "context_length_exceeded_behavior": one_of("truncate", "error"),
    "top_logprobs": integer(0, 5),
    "prompt_cache_isolation_key": string,
}
REFUSED = {
    "best_of": "use n",
    "typical_p": "",
    "mirostat_target": "",
    "mirostat_lr": "",
    "echo_last": "use echo",
    "images": "",
    "prediction": "",
    "speculation": "",
    "reasoning_effort": "",
    "reasoning_history": "",
    "thinking": "",
    "raw_output": "",
    "perf_metrics_in_response": "",
    "prompt_cache_max_len": "",
    "prompt_truncate_len": "shorten the messages",
    "safe_tokenization": "",
}
RULED = {"logprobs", "response_format", "stream_options"}
CHAT_ONLY = {"messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"}
COMPLETION_ONLY = {"prompt", "echo"}
CHAT_REFUSED = {"echo": "it is a field of completions"}


@dataclass(frozen=True)
class EngineRequest:
    """A checked request: the engine's body without its `model`, and how the answer is to be shaped."""

    body: dict[str, Any]
    stream: bool
    include_usage: bool
    """The caller asked for OpenAI's own last chunk, with usage and no choices."""
    legacy_logprobs: bool
    """A chat caller asked for logprobs by number, and reads them in the completions' shape."""
    exact_max_tokens: int | None
    """Refuse a prompt that leaves fewer tokens than this, instead of giving what is left."""


def translate_chat(
    sent: Mapping[str, Any], context_length: int, cache_scope: str | None = None
) -> EngineRequest:
    """A chat request as the engine reads it; 400 naming the field otherwise."""
    fields = _given(sent, CHAT_ONLY, CHAT_REFUSED)
    body = _shared(fields, cache_scope)
    body["messages"] = check_messages("messages", sent.get("messages"))
    body |= _tools(fields)
    logprobs, legacy = _chat_logprobs(fields)
    body |= logprobs
    return _finish(body, fields, context_length, legacy, smallest=1)


def translate_completion(
    sent: Mapping[str, Any], context_length: int, cache_scope: str | None = None
) -> EngineRequest:
    """A completion request as the engine reads it; 400 naming the field otherwise."""
    fields = _given(sent, COMPLETION_ONLY, {})
    body = _shared(fields, cache_scope)
    body["prompt"] = _prompt(sent.get("prompt"))
    if "echo" in fields:
        body["echo"] = boolean("echo", fields["echo"])
    body |= _completion_logprobs(fields)
    return _finish(body, fields, context_length, legacy=False, smallest=0 if body.get("echo") else 1)


def _given(sent: Mapping[str, Any], own: set[str], refused: Mapping[str, str]) -> dict[str, Any]:
    """The fields that ask for something: null ones and refused ones that are false ask for nothing."""
    refused = {**REFUSED, **refused}
    known = PASSED.keys() | HINTS.keys() | TRANSLATED.keys() | RULED | own
    for name, value in sent.items():
        if name in refused and value is not None and value is not False:
            raise unsupported(name, refused[name])
        if name not in known and name not in refused:
            raise extra_input(name, value)
    return {name: value for name, value in sent.items() if value is not None and name not in refused}


def _shared(fields: Mapping[str, Any], cache_scope: str | None) -> dict[str, Any]:
    for checks in (HINTS, TRANSLATED):
        for name in checks.keys() & fields.keys():
            checks[name](name, fields[name])
    body = {name: check(name, fields[name]) for name, check in PASSED.items() if name in fields}
    if "response_format" in fields:
        body |= response_format("response_format", fields["response_format"])
    salt = _cache_salt(cache_scope, fields.get("prompt_cache_isolation_key"))
    return body | ({"cache_salt": salt} if salt else {})


def _cache_salt(scope: str | None, isolation_key: str | None) -> str | None:
    """Keeps prompt caches apart. The engine takes few characters, so that any key is hashed."""
    if scope is None and isolation_key is None:
        return None
    return hashlib.sha256(f"{scope or ''}\0{isolation_key or ''}".encode()).hexdigest()


def _finish(
    body: dict[str, Any], fields: Mapping[str, Any], context_length: int, legacy: bool, smallest: int
) -> EngineRequest:
    stream = bool(fields.get("stream", False))
    include_usage = _include_usage(fields, stream)
    if stream:
        # The counts are needed for metering whatever the caller asked for; on every chunk, so that a
        # stream that is cut off is charged for what was generated.
        body["stream"] = True
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    wanted = _wanted_tokens(fields, smallest)
    exact = fields.get("context_length_exceeded_behavior") == "error"
    body["max_tokens"] = _clip(DEFAULT_MAX_TOKENS if wanted is None else wanted, context_length)
    return EngineRequest(body, stream, include_usage, legacy, wanted if exact else None)


def _clip(max_tokens: int, context_length: int) -> int:
    """The engine gives what the prompt leaves of its context, but refuses to be asked for more than all."""
    return min(max_tokens, context_length) if context_length else max_tokens


def _wanted_tokens(fields: Mapping[str, Any], smallest: int) -> int | None:
    if "max_tokens" in fields and "max_completion_tokens" in fields:
        raise invalid("only one of 'max_tokens' and 'max_completion_tokens' may be given", "max_tokens")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in fields:
            return int(integer(smallest)(name, fields[name]))
    return None


def _include_usage(fields: Mapping[str, Any], stream: bool) -> bool:
    if "stream_options" not in fields:
        return False
    if not stream:
        raise invalid("'stream_options' may only be given with 'stream': true", "stream_options")
    options = mapping("stream_options", fields["stream_options"])
    only("stream_options", options, {"include_usage"})
    wanted = options.get("include_usage")
    return boolean("stream_options.include_usage", wanted) if wanted is not None else False


def _tools(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Tools and the choice among them; the deprecated functions are tools by an older name."""
    if "tools" in fields and "functions" in fields:
        raise invalid("only one of 'tools' and 'functions' may be given", "functions")
    tools = (
        check_functions("functions", fields["functions"])
        if "functions" in fields
        else check_tools("tools", fields.get("tools", []))
    )
    choice: str | dict[str, Any] | None = None
    if "tool_choice" in fields:
        choice = check_tool_choice("tool_choice", fields["tool_choice"])
    elif "function_call" in fields:
        choice = check_function_call("function_call", fields["function_call"])
    if not tools:
        if choice not in (None, "auto", "none"):
            raise invalid("'tool_choice' asks for a tool, but there are no 'tools'", "tool_choice")
        return {}
    found: dict[str, Any] = {"tools": tools, "tool_choice": choice or "auto"}
    if "parallel_tool_calls" in fields:
        found["parallel_tool_calls"] = boolean("parallel_tool_calls", fields["parallel_tool_calls"])
    return found


def _chat_logprobs(fields: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The engine's fields, and whether the caller reads the completions' shape."""
    wanted, top = fields.get("logprobs"), fields.get("top_logprobs")
    if wanted is None or wanted is False:
        if top:
            raise invalid("'top_logprobs' may only be given with 'logprobs': true", "top_logprobs")
        return {}, False
    if wanted is True:
        return {"logprobs": True, "top_logprobs": top or 0}, False
    if top is not None:
        raise invalid("'top_logprobs' may only be given with 'logprobs': true", "top_logprobs")
    return {"logprobs": True, "top_logprobs": integer(0, 5)("logprobs", wanted)}, True


def _completion_logprobs(fields: Mapping[str, Any]) -> dict[str, Any]:
    wanted = fields.get("logprobs")
    if wanted is True or fields.get("top_logprobs"):
        raise unsupported("logprobs" if wanted is True else "top_logprobs", "give logprobs as a number")
    if wanted is None or wanted is False:
        return {}
    return {"logprobs": integer(0, 5)("logprobs", wanted)}


def _prompt(value: Any) -> Any:
    """Text, a list of texts, the ids of one prompt's tokens, or a list of such lists."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        texts = all(isinstance(item, str) and item for item in value)
        if texts or _is_tokens(value) or all(isinstance(item, list) and _is_tokens(item) for item in value):
            return value
    raise invalid(
        "'prompt' must be a non-empty string or list of strings, or token ids or a list of them", "prompt"
    )


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int and 0 <= item < 2**31 for item in value)
