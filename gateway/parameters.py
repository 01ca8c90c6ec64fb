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
from gateway.conversation import MESSAGE_FIELDS, ROLES

DEFAULT_MAX_TOKENS = 2000
"""The API's default; clipped, as any `max_tokens` is, to what the context leaves."""

NO_GUESSES = "Refused where the deployment has `draftModel` or `ngramSpeculationLength`."


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
        "Content is text or a list of parts: `text`, `image_url` and `input_audio`. See Images and audio.",
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
        note="A number, for that many alternatives up to 5 in the shape of older clients, or true.",
    ),
    Parameter(
        "top_logprobs",
        Fate.TRANSLATED,
        check=integer(0, 5),
        note="Alternatives for each token, with `logprobs: true`.",
    ),
    Parameter(
        "echo",
        Fate.TRANSLATED,
        check=boolean,
        note="Put the prompt before the answer; in chat, as the template has written it, and without "
        "logprobs or tools.",
    ),
    Parameter(
        "raw_output",
        Fate.TRANSLATED,
        check=boolean,
        note="Add to each choice the prompt and the completion, as text and as tokens, and the grammar that "
        "it was held to.",
    ),
    Parameter(
        "perf_metrics_in_response",
        Fate.TRANSLATED,
        check=boolean,
        note="Add the counts and durations; in a stream, to the last chunk.",
    ),
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
    Parameter(
        "prompt_cache_max_len",
        Fate.TRANSLATED,
        check=integer(0),
        note="Only 0: the prompt is neither looked up in a cache nor left in one.",
    ),
    Parameter(
        "typical_p",
        Fate.TRANSLATED,
        check=number(0, 1),
        note="Keep the tokens that are about as surprising as expected, up to so much of the probability. "
        + NO_GUESSES,
    ),
    Parameter(
        "mirostat_target",
        Fate.TRANSLATED,
        check=number(0, 100),
        note="The surprise, in bits a token, that Mirostat 2 holds the answer to. " + NO_GUESSES,
    ),
    Parameter(
        "mirostat_lr",
        Fate.TRANSLATED,
        check=number(0, 1),
        note="How fast Mirostat corrects itself, 0.1 when unset.",
    ),
    Parameter(
        "reasoning_effort",
        Fate.TRANSLATED,
        CHAT,
        note="`none`, `low`, `medium`, `high`, true or false, where the model's template tells them apart.",
    ),
    Parameter(
        "thinking",
        Fate.TRANSLATED,
        CHAT,
        note='`{"type": "enabled"}` or `{"type": "disabled"}`: the same as `reasoning_effort` `medium` or '
        "`none`.",
    ),
    Parameter("temperature", Fate.PASSED, check=number(0, 2)),
    Parameter("top_p", Fate.PASSED, check=number(0, 1)),
    Parameter("min_p", Fate.PASSED, check=number(0, 1), note=NO_GUESSES),
    Parameter("top_k", Fate.PASSED, check=integer(0, 100)),
    Parameter("frequency_penalty", Fate.PASSED, check=number(-2, 2)),
    Parameter("presence_penalty", Fate.PASSED, check=number(-2, 2)),
    Parameter("repetition_penalty", Fate.PASSED, check=number(0, 2)),
    Parameter("n", Fate.PASSED, check=integer(1, 128)),
    Parameter("stop", Fate.PASSED, check=stop_strings),
    Parameter("seed", Fate.PASSED, check=integer(-(2**63), 2**63 - 1)),
    Parameter("logit_bias", Fate.PASSED, check=logit_bias, note=NO_GUESSES),
    Parameter("ignore_eos", Fate.PASSED, check=boolean),
    Parameter("return_token_ids", Fate.PASSED, check=boolean),
    Parameter("user", Fate.HINT, check=string, note="Requests of one user go to one replica."),
    Parameter("metadata", Fate.HINT, check=string_map),
    Parameter(
        "prompt_cache_key",
        Fate.HINT,
        check=string,
        note="Requests with the same key go to one replica; it counts before `user`, and the header "
        "`x-session-affinity` before both.",
    ),
    Parameter("service_tier", Fate.HINT, check=one_of("auto", "default", "flex", "priority")),
    Parameter("best_of", Fate.REFUSED, note="use n"),
    Parameter("echo_last", Fate.REFUSED, note="use echo"),
    Parameter("images", Fate.REFUSED, note="use parts of the type image_url in chat"),
    Parameter("prediction", Fate.REFUSED, note="leave it out: it would not change the answer"),
    Parameter("prompt_truncate_len", Fate.REFUSED, note="shorten the messages"),
    Parameter("reasoning_history", Fate.REFUSED),
    Parameter("safe_tokenization", Fate.REFUSED),
    Parameter("speculation", Fate.REFUSED, note="leave it out: it would not change the answer"),
)


def of_endpoint(endpoint: str) -> Mapping[str, Parameter]:
    """The parameters of `chat` or `completions`, by name."""
    return {each.name: each for each in PARAMETERS if each.of in (BOTH, endpoint)}


def checks_of(fate: Fate) -> dict[str, Check]:
    return {each.name: each.check for each in PARAMETERS if each.fate is fate and each.check is not None}


OF_CHAT, OF_COMPLETIONS = of_endpoint(CHAT), of_endpoint(COMPLETIONS)
PASSED, TRANSLATED, HINTS = checks_of(Fate.PASSED), checks_of(Fate.TRANSLATED), checks_of(Fate.HINT)
