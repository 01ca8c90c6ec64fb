"""The inference part of `docs/api.md`: the gateway's endpoints, and what becomes of each request field."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from starlette.routing import Route

from controlplane.config import Settings
from docs.generator.markdown import code, listed, prose, table
from gateway import dialect, resolver
from gateway.app import INFERENCE_PREFIXES, NotAllowed, create_app
from gateway.checks import Check
from gateway.errors import GatewayError
from gateway.messages import FORMATS, MESSAGE_FIELDS, ROLES

Row = tuple[str, str, str, str, str]

SUMMARIES = {
    "POST /chat/completions": "Answer a conversation; with `stream`, as server-sent events",
    "POST /completions": "Continue a prompt; with `stream`, as server-sent events",
    "GET /models": "List the models that the caller can query now",
    "GET /models/{model}": "Show one model that the caller can query",
}
# Of every field that is neither passed on as it is, nor a hint, nor refused.
EXPLAINED = {
    "model": "Required: which model is asked. The forms stand below.",
    "stream": "Answer piece by piece, as server-sent events.",
    "stream_options": "Only with `stream`. `include_usage` asks for a last chunk with the usage.",
    "max_tokens": (
        f"The most tokens to generate, {dialect.DEFAULT_MAX_TOKENS} when unset; "
        "never more than the prompt leaves of the context."
    ),
    "max_completion_tokens": "Another name of `max_tokens`; give one of them.",
    "context_length_exceeded_behavior": (
        "`truncate` gives as many tokens as fit; `error` refuses a prompt that leaves fewer than asked for."
    ),
    "logprobs": "In chat true or a number, in completions a number: how many alternatives, up to 5.",
    "top_logprobs": "Alternatives for each token in chat, with `logprobs: true`.",
    "prompt_cache_isolation_key": (
        "Prompt caches are shared only by requests with the same key. "
        "The header `x-prompt-cache-isolation-key` means the same."
    ),
    "response_format": f"Its `type` is one of {listed(FORMATS)}.",
    "messages": (
        f"Required. Roles are {listed(ROLES)}; fields are {listed(sorted(MESSAGE_FIELDS))}. "
        "Content is text or a list of text parts."
    ),
    "tools": "Functions that the model may call.",
    "tool_choice": "`auto`, `none`, `required`, `any` (the same as `required`), or one function.",
    "parallel_tool_calls": "Only with tools.",
    "functions": "The older form of `tools`; give one of them.",
    "function_call": "The older form of `tool_choice`.",
    "prompt": "Required. Text, a list of texts, the ids of a prompt's tokens, or a list of such lists.",
    "echo": "Put the prompt before the completion.",
}

FIELDS = prose("""
Both ways to ask for text take these fields. Nothing is accepted and then ignored: a field is passed on
to the engine, translated for it, a hint that never changes the answer, or refused by name. A field that
is not in this table is refused as unknown. A field that is null counts as not sent, and so does a
refused one that is false.
""")

NAMES = prose("""
`model` takes any of these forms. What the caller cannot reach is not found, as if it did not exist. A
model that is deployed in several places is asked at its default one.
""")


def inference() -> list[str]:
    prefixes = " and under ".join(code(prefix) for prefix in INFERENCE_PREFIXES)
    return [
        "## Inference",
        f"These answer under {prefixes}, in the shapes that OpenAI's clients know.",
        table(("request", "what it does"), [(code(name), SUMMARIES[name]) for name in gateway_endpoints()]),
        "### How a model is named",
        NAMES,
        _naming_forms(),
        "### Request fields",
        FIELDS,
        table(("field", "of", "what becomes of it", "value", "note"), _fields()),
    ]


def gateway_endpoints() -> list[str]:
    """The inference endpoints as `METHOD /path`, below the prefixes."""
    prefix = INFERENCE_PREFIXES[0]
    return [
        f"{method} {route.path.removeprefix(prefix).replace(':path', '')}"
        for route in create_app(Settings.model_construct()).routes
        if isinstance(route, Route) and route.path.startswith(f"{prefix}/")
        if not isinstance(route.endpoint, NotAllowed)
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def accepted_fields() -> set[str]:
    """Every field that a request may carry, except for the hints and what is passed on as it is."""
    return dialect.TRANSLATED.keys() | dialect.RULED | dialect.CHAT_ONLY | dialect.COMPLETION_ONLY


def _naming_forms() -> str:
    """The table in the resolver's own words."""
    lines = (inspect.getdoc(resolver) or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def _fields() -> Iterator[Row]:
    for name in sorted(accepted_fields(), key=_place):
        value = _rule(dialect.TRANSLATED[name]) if name in dialect.TRANSLATED else ""
        yield code(name), _endpoint(name), "translated", value, EXPLAINED[name]
    yield from _checked(dialect.PASSED, "passed on")
    yield from _checked(dialect.HINTS, "hint")
    for name, advice in sorted(dialect.REFUSED.items()):
        yield code(name), "both", "refused", "", advice
    for name, advice in dialect.CHAT_REFUSED.items():
        yield code(name), "chat", "refused", "", advice


def _checked(checks: Mapping[str, Check], fate: str) -> Iterator[Row]:
    for name, check in checks.items():
        yield code(name), "both", fate, _rule(check), ""


def _place(name: str) -> int:
    return list(EXPLAINED).index(name)


def _endpoint(name: str) -> str:
    if name in dialect.CHAT_ONLY:
        return "chat"
    return "completions" if name in dialect.COMPLETION_ONLY else "both"


def _rule(check: Check) -> str:
    """What a check asks for, in the words in which it refuses a value that is nothing at all."""
    try:
        check("field", object())
    except GatewayError as error:
        _, _, wanted = error.message.partition(" must be ")
        return wanted.partition(", not ")[0]
    raise AssertionError(f"{check} takes anything")
