"""Every parameter of `messages`, the way to ask for text that Anthropic's clients know."""

from __future__ import annotations

from gateway.checks import boolean, integer, number, stop_strings, string
from gateway.parameters import DEFAULT_MAX_TOKENS, Fate, Parameter

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", Fate.TRANSLATED, check=string, note="Required: which model is asked."),
    Parameter(
        "messages",
        Fate.TRANSLATED,
        note="Required. Roles are `user` and `assistant`; content is text or blocks: `text`, `image`, "
        "`tool_use`, `tool_result` and `thinking`. `document` and `redacted_thinking` are refused. A last "
        "message of the assistant is gone on with. `cache_control` is a hint: prompts are cached anyway.",
    ),
    Parameter(
        "max_tokens",
        Fate.TRANSLATED,
        check=integer(1),
        note=f"The most tokens to generate, {DEFAULT_MAX_TOKENS} when unset; "
        "never more than the prompt leaves of the context.",
    ),
    Parameter("system", Fate.TRANSLATED, note="Text, or a list of text blocks."),
    Parameter("stop_sequences", Fate.TRANSLATED, check=stop_strings),
    Parameter("stream", Fate.TRANSLATED, check=boolean, note="Answer piece by piece, as server-sent events."),
    Parameter(
        "tools",
        Fate.TRANSLATED,
        note="Functions that the model may call: `name`, `description`, `input_schema`, `strict`. Tools that "
        "run on the server are refused. See Function calling.",
    ),
    Parameter(
        "tool_choice",
        Fate.TRANSLATED,
        note="Its `type` is `auto`, `any`, `tool` (with `name`) or `none`; `disable_parallel_tool_use` "
        "allows one call only.",
    ),
    Parameter(
        "output_config",
        Fate.TRANSLATED,
        note="`format` of type `json_schema` is kept to as in Structured output; `effort` is "
        "`reasoning_effort` of chat.",
    ),
    Parameter("thinking", Fate.TRANSLATED, note="As in chat."),
    Parameter(
        "prompt_cache_isolation_key",
        Fate.TRANSLATED,
        check=string,
        note="As in chat. The header `x-prompt-cache-isolation-key` means the same.",
    ),
    Parameter("raw_output", Fate.TRANSLATED, note="As in chat."),
    Parameter("temperature", Fate.PASSED, check=number(0, 1)),
    Parameter("top_p", Fate.PASSED, check=number(0, 1)),
    Parameter("top_k", Fate.PASSED, check=integer(0, 100)),
    Parameter("metadata", Fate.HINT, note="`user_id` is `user` of chat."),
)

KNOWN = {each.name: each for each in PARAMETERS}
