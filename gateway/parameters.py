"""Every parameter of a request for text, and what becomes of it: the one table of the dialect.

No parameter is accepted and then ignored. What is `PASSED` means the same to the engine; what is
`TRANSLATED` has a rule in `dialect.py`; a `HINT` may change where or how fast a request runs, never its
answer; what is `REFUSED` is documented by the API but cannot be honoured, and is refused by name. Any other
field is unknown, and refused as the API words it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.checks import (
    Check,
    boolean,
    integer,
    logit_bias,
    number,
    one_of,
    stop_strings,
    string,
    string_map,
)
from gateway.constraints.formats import FORMATS
from gateway.messages import MESSAGE_FIELDS, ROLES

DEFAULT_MAX_TOKENS = 2000
"""The API's default; clipped, as any `max_tokens` is, to what the context leaves."""


class Fate(StrEnum):
    PASSED = "passed on"
    TRANSLATED = "translated"
    HINT = "hint"
    REFUSED = "refused"


BOTH, CHAT, COMPLETIONS = "both", "chat", "completions"


@dataclass(frozen=True)
class Parameter:
    name: str
    fate: Fate
    of: str = BOTH
    check: Check | None = None
    note: str = ""
    """What it does; of a refused one, what to do instead."""


def _quoted(names: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", Fate.TRANSLATED, check=string, note="Required: which model is asked."),
    Parameter(
        "messages",
        Fate.TRANSLATED,
        CHAT,
        note=f"Required. Roles are {_quoted(ROLES)}; fields are {_quoted(sorted(MESSAGE_FIELDS))}. "
        "Content is text or a list of text parts.",
    ),
    Parameter(
        "prompt",
        Fate.TRANSLATED,
        COMPLETIONS,
        note="Required. Text, a list of texts, the ids of a prompt's tokens, or a list of such lists.",
    ),
    Parameter("stream", Fate.TRANSLATED, check=boolean, note="Answer piece by piece, as server-sent events."),
    Parameter(
        "stream_options",
        Fate.TRANSLATED,
        note="Only with `stream`. `include_usage` asks for a last chunk with the usage.",
    ),
    Parameter(
        "max_tokens",
        Fate.TRANSLATED,
        check=integer(0),
        note=f"The most tokens to generate, {DEFAULT_MAX_TOKENS} when unset; "
        "never more than the prompt leaves of the context.",
    ),
    Parameter(
        "max_completion_tokens",
        Fate.TRANSLATED,
        check=integer(0),
        note="Another name of `max_tokens`; give one of them.",
    ),
    Parameter(
        "context_length_exceeded_behavior",
        Fate.TRANSLATED,
        check=one_of("truncate", "error"),
        note="`truncate` gives as many tokens as fit; `error` refuses a prompt that leaves fewer than asked "
        "for.",
    ),
    Parameter(
        "logprobs",
        Fate.TRANSLATED,
        note="In chat true or a number, in completions a number: how many alternatives, up to 5.",
    ),
    Parameter(
        "top_logprobs",
        Fate.TRANSLATED,
        check=integer(0, 5),
        note="Alternatives for each token in chat, with `logprobs: true`.",
    ),
    Parameter("echo", Fate.TRANSLATED, COMPLETIONS, note="Put the prompt before the completion."),
    Parameter(
        "response_format",
        Fate.TRANSLATED,
        note=f"Its `type` is one of {_quoted(FORMATS)}. See Structured output.",
    ),
    Parameter(
        "tools", Fate.TRANSLATED, CHAT, note="Functions that the model may call. See Function calling."
    ),
    Parameter(
        "tool_choice",
        Fate.TRANSLATED,
        CHAT,
        note="`auto`, `none`, `required`, `any` (the same as `required`), one function, or "
        '`{"type": "function"}` (any function).',
    ),
    Parameter(
        "parallel_tool_calls",
        Fate.TRANSLATED,
        CHAT,
        note="True allows several calls in one answer, false only one.",
    ),
    Parameter(
        "functions",
        Fate.TRANSLATED,
        CHAT,
        note="The older form of `tools`; give one of them. The answer has `function_call`.",
    ),
    Parameter("function_call", Fate.TRANSLATED, CHAT, note="The older form of `tool_choice`."),
    Parameter(
        "prompt_cache_isolation_key",
        Fate.TRANSLATED,
        check=string,
        note="Prompt caches are shared only by requests with the same key. "
        "The header `x-prompt-cache-isolation-key` means the same.",
    ),
    Parameter("temperature", Fate.PASSED, check=number(0, 2)),
    Parameter("top_p", Fate.PASSED, check=number(0, 1)),
    Parameter("min_p", Fate.PASSED, check=number(0, 1)),
    Parameter("top_k", Fate.PASSED, check=integer(0, 100)),
    Parameter("frequency_penalty", Fate.PASSED, check=number(-2, 2)),
    Parameter("presence_penalty", Fate.PASSED, check=number(-2, 2)),
    Parameter("repetition_penalty", Fate.PASSED, check=number(0, 2)),
    Parameter("n", Fate.PASSED, check=integer(1, 128)),
    Parameter("stop", Fate.PASSED, check=stop_strings),
    Parameter("seed", Fate.PASSED, check=integer(-(2**63), 2**63 - 1)),
    Parameter("logit_bias", Fate.PASSED, check=logit_bias),
    Parameter("ignore_eos", Fate.PASSED, check=boolean),
    Parameter("return_token_ids", Fate.PASSED, check=boolean),
    Parameter("user", Fate.HINT, check=string),
    Parameter("metadata", Fate.HINT, check=string_map),
    Parameter("prompt_cache_key", Fate.HINT, check=string),
    Parameter("service_tier", Fate.HINT, check=one_of("auto", "default", "flex", "priority")),
    Parameter("best_of", Fate.REFUSED, note="use n"),
    Parameter("echo", Fate.REFUSED, CHAT, note="it is a field of completions"),
    Parameter("echo_last", Fate.REFUSED, note="use echo"),
    Parameter("images", Fate.REFUSED),
    Parameter("mirostat_lr", Fate.REFUSED),
    Parameter("mirostat_target", Fate.REFUSED),
    Parameter("perf_metrics_in_response", Fate.REFUSED),
    Parameter("prediction", Fate.REFUSED),
    Parameter("prompt_cache_max_len", Fate.REFUSED),
    Parameter("prompt_truncate_len", Fate.REFUSED, note="shorten the messages"),
    Parameter("raw_output", Fate.REFUSED),
    Parameter("reasoning_effort", Fate.REFUSED),
    Parameter("reasoning_history", Fate.REFUSED),
    Parameter("safe_tokenization", Fate.REFUSED),
    Parameter("speculation", Fate.REFUSED),
    Parameter("thinking", Fate.REFUSED),
    Parameter("typical_p", Fate.REFUSED),
)


def of_endpoint(endpoint: str) -> Mapping[str, Parameter]:
    """The parameters of `chat` or `completions`, by name."""
    return {each.name: each for each in PARAMETERS if each.of in (BOTH, endpoint)}


def checks_of(fate: Fate) -> dict[str, Check]:
    return {each.name: each.check for each in PARAMETERS if each.fate is fate and each.check is not None}


OF_CHAT, OF_COMPLETIONS = of_endpoint(CHAT), of_endpoint(COMPLETIONS)
PASSED, TRANSLATED, HINTS = checks_of(Fate.PASSED), checks_of(Fate.TRANSLATED), checks_of(Fate.HINT)
