"""Every parameter of `responses`, OpenAI's newer way to ask for text."""

from __future__ import annotations

from gateway.checks import boolean, integer, number, one_of, string, string_map
from gateway.parameters import DEFAULT_MAX_TOKENS, Fate, Parameter

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", Fate.TRANSLATED, check=string, note="Required: which model is asked."),
    Parameter(
        "input",
        Fate.TRANSLATED,
        note="Required. Text, or a list of items: messages, `function_call`, `function_call_output` and "
        "`reasoning`. Messages have the roles `user`, `assistant`, `system` and `developer`, and hold "
        "`input_text`, `output_text`, `refusal` and `input_image`.",
    ),
    Parameter("instructions", Fate.TRANSLATED, check=string, note="The first system message."),
    Parameter(
        "previous_response_id",
        Fate.TRANSLATED,
        check=string,
        note="Goes on from a stored response of the same account, with all that came before it.",
    ),
    Parameter(
        "store",
        Fate.TRANSLATED,
        check=boolean,
        note="True when unset: the response is kept for `HEARTH_RESPONSE_DAYS`. One that is not stored has "
        "the id null.",
    ),
    Parameter("stream", Fate.TRANSLATED, check=boolean, note="Answer piece by piece, as server-sent events."),
    Parameter(
        "max_output_tokens",
        Fate.TRANSLATED,
        check=integer(1),
        note=f"The most tokens to generate, {DEFAULT_MAX_TOKENS} when unset; "
        "never more than the prompt leaves of the context.",
    ),
    Parameter(
        "tools",
        Fate.TRANSLATED,
        note="Tools of type `function`. Tools that run on the server are refused. See Function calling.",
    ),
    Parameter(
        "tool_choice",
        Fate.TRANSLATED,
        note='`auto`, `none`, `required`, or `{"type": "function", "name": …}`.',
    ),
    Parameter("parallel_tool_calls", Fate.TRANSLATED, check=boolean),
    Parameter(
        "text",
        Fate.TRANSLATED,
        note="`format` of type `text`, `json_object` or `json_schema`. See Structured output.",
    ),
    Parameter("reasoning", Fate.TRANSLATED, note="`effort` is `reasoning_effort` of chat."),
    Parameter(
        "truncation",
        Fate.TRANSLATED,
        check=one_of("auto", "disabled"),
        note="Only `disabled`: a conversation that is too long is refused.",
    ),
    Parameter(
        "metadata",
        Fate.TRANSLATED,
        check=string_map,
        note="Up to 16 texts, which are kept with the response.",
    ),
    Parameter(
        "prompt_cache_isolation_key",
        Fate.TRANSLATED,
        check=string,
        note="As in chat. The header `x-prompt-cache-isolation-key` means the same.",
    ),
    Parameter("temperature", Fate.PASSED, check=number(0, 2)),
    Parameter("top_p", Fate.PASSED, check=number(0, 1)),
    Parameter(
        "max_tool_calls",
        Fate.HINT,
        check=integer(1),
        note="Of tools that run on the server, of which there are none.",
    ),
    Parameter("user", Fate.HINT, check=string),
    Parameter("prompt_cache_key", Fate.HINT, check=string),
    Parameter("safety_identifier", Fate.HINT, check=string),
    Parameter("service_tier", Fate.HINT, check=one_of("auto", "default", "flex", "priority")),
    Parameter("background", Fate.REFUSED, note="ask with 'stream', or in a thread of your own"),
    Parameter("conversation", Fate.REFUSED, note="use previous_response_id"),
    Parameter("include", Fate.REFUSED),
    Parameter("prompt", Fate.REFUSED, note="use instructions and input"),
    Parameter("stream_options", Fate.REFUSED),
    Parameter("top_logprobs", Fate.REFUSED, note="use logprobs of chat"),
)

KNOWN = {each.name: each for each in PARAMETERS}
