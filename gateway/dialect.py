"""The request dialects: what callers send, translated into what the engine is sent for it.

`parameters.py` says what becomes of every field; here are the rules of those that are translated.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from controlplane.checks.tool_calls import PLAIN_TEMPLATE, CallForm
from gateway.checks import boolean, extra_input, integer, mapping, one_of, only
from gateway.constraints.formats import response_constraint, sound, unenforced_header
from gateway.conversation import check_messages, take_functions
from gateway.errors import invalid, unsupported
from gateway.extras import Extras
from gateway.parameters import (
    DEFAULT_MAX_TOKENS,
    HINTS,
    OF_CHAT,
    OF_COMPLETIONS,
    PASSED,
    TRANSLATED,
    Fate,
    Parameter,
)
from gateway.tools.answers import CallAnswers
from gateway.tools.grammar import call_rules
from gateway.tools.prompt import with_functions
from gateway.tools.requested import Calling, read_calling

SHORT_IDS = "mistral"
CHECKED = HINTS | TRANSLATED
AT_LEAST = {smallest: integer(smallest) for smallest in (0, 1)}
PLUGGED_IN = ("typical_p", "mirostat_target", "mirostat_lr")
SAMPLED = frozenset({"temperature", *PLUGGED_IN})
NOT_WITH_GUESSES = ("min_p", "logit_bias")
"""Nor with what is plugged in."""
GUESSES_AHEAD = (
    "the deployment guesses tokens ahead (by draftModel or ngramSpeculationLength), which it does not go with"
)
EXTRAS = frozenset({"echo", "raw_output", "perf_metrics_in_response", "logprobs"})
PLAIN = {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
RULED = frozenset(name for name, each in OF_CHAT.items() if each.fate is Fate.TRANSLATED) - PLAIN
"""Fields of a chat that there may be more rules for; most requests have none of them."""
EFFORTS = ("none", "low", "medium", "high")
SWITCH = {"enabled": "medium", "disabled": "none"}
CONTRADICTIONS = {
    "ignore_eos": "a constrained answer ends where its constraint is fulfilled",
    "response_format": "a request with tools may only have one with 'tool_choice': none",
    "logprobs": "those of the prompt are told by completions",
    "tools": "the prompt is told before an answer in words",
    "functions": "the prompt is told before an answer in words",
    "echo": "the raw output has the prompt already",
}


class EngineRequest(msgspec.Struct, frozen=True):
    """A checked request: the engine's body without its `model`, and how the answer is to be shaped."""

    body: dict[str, Any]
    stream: bool
    include_usage: bool
    """The caller asked for OpenAI's own last chunk, with usage and no choices."""
    legacy_logprobs: bool
    """A chat caller asked for logprobs by number, and reads them in the completions' shape."""
    exact_max_tokens: int | None
    """Refuse a prompt that leaves fewer tokens than this, instead of giving what is left."""
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    """Of the answer, besides the usual ones."""
    calls: CallAnswers | None = None
    """Turns the answer into calls, where it may be one."""
    extras: Extras | None = None
    """What the caller is told besides."""
    session: str | None = None
    """Requests of one session begin alike: they are best answered by one replica."""


def translate_chat(
    sent: Mapping[str, Any],
    context_length: int,
    cache_scope: str | None = None,
    form: CallForm = PLAIN_TEMPLATE,
) -> EngineRequest:
    """A chat request as the engine reads it; 400 naming the field otherwise."""
    fields = given(sent, OF_CHAT)
    body = _shared(fields, cache_scope)
    messages, listed = take_functions("messages", check_messages("messages", sent.get("messages")))
    calling = read_calling(fields, listed)
    body |= with_functions(messages, calling, form)
    if calling is None and RULED.isdisjoint(fields):
        return _finish(body, fields, context_length, legacy=False, smallest=1, headers=[])
    logprobs, legacy = _chat_logprobs(fields)
    body |= logprobs | _thinking(fields, form)
    _refuse_echo(fields)
    if calling is None:
        return _finish(body, fields, context_length, legacy, smallest=1, headers=_constrain(body, fields))
    calls = _constrain_calls(body, fields, calling, form)
    headers = unenforced_header(calling.unenforced)
    return _finish(body, fields, context_length, legacy, smallest=1, headers=headers, calls=calls)


def write_by(template: str, request: EngineRequest) -> None:
    """Have the engine write a chat's prompt by this template, in the `mode` that the model is served in."""
    if "messages" in request.body:
        request.body["chat_template"] = template
        told = request.body.get("chat_template_kwargs", {})
        request.body["chat_template_kwargs"] = {**told, "mode": "generate"}


def refuse_beside_guesses(request: EngineRequest) -> None:
    """Refuse what an engine cannot do that guesses tokens ahead."""
    passed = (name for name in NOT_WITH_GUESSES if request.body.get(name))
    for name in (*passed, *request.body.get("vllm_xargs", ())):
        raise unsupported(name, GUESSES_AHEAD)


def translate_completion(
    sent: Mapping[str, Any],
    context_length: int,
    cache_scope: str | None = None,
    form: CallForm = PLAIN_TEMPLATE,
) -> EngineRequest:
    """A completion request as the engine reads it; 400 naming the field otherwise."""
    fields = given(sent, OF_COMPLETIONS)
    body = _shared(fields, cache_scope)
    body["prompt"] = _prompt(sent.get("prompt"))
    if fields.get("raw_output"):
        _require_none("raw_output", fields, "echo")
    if "echo" in fields:
        body["echo"] = boolean("echo", fields["echo"])
    body |= _completion_logprobs(fields)
    smallest = 0 if body.get("echo") else 1
    headers = _constrain(body, fields)
    return _finish(body, fields, context_length, legacy=False, smallest=smallest, headers=headers)


def given(sent: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """The fields that ask for something: null ones and refused ones that are false ask for nothing."""
    found = {}
    for name, value in sent.items():
        if name not in known:
            raise extra_input(name, value)
        refused = known[name].fate is Fate.REFUSED
        if refused and value is not None and value is not False:
            raise unsupported(name, known[name].note)
        if value is not None and not refused:
            found[name] = value
    return found


def _shared(fields: Mapping[str, Any], cache_scope: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in fields.items():
        if check := CHECKED.get(name):
            check(name, value)
        elif check := PASSED.get(name):
            body[name] = check(name, value)
    if not SAMPLED.isdisjoint(fields):
        body |= _sampling(body, fields)
    if salt := cache_salt(cache_scope, fields):
        body["cache_salt"] = salt
    return body


def _sampling(body: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine's plug-in is told, and greedy choices in words that the engine takes for several."""
    if "mirostat_lr" in fields and "mirostat_target" not in fields:
        raise invalid("'mirostat_lr' may only be given with 'mirostat_target'", "mirostat_lr")
    if body.get("temperature") == 0:
        # The engine refuses several greedy choices; the likeliest of one token is the same.
        return {"temperature": 1.0, "top_k": 1} if body.get("n", 1) > 1 else {}
    asked = {name: fields[name] for name in PLUGGED_IN if name in fields}
    if asked.get("typical_p") == 1:
        del asked["typical_p"]  # keeps all
    return {"vllm_xargs": asked} if asked else {}


def _constrain(body: dict[str, Any], fields: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Hold the engine to the response format; returns the headers that say what cannot be held to."""
    if "response_format" not in fields:
        return []
    constraint = response_constraint("response_format", fields["response_format"])
    if constraint is None:
        return []
    _require_none("response_format", fields, "ignore_eos")
    body |= constraint.body
    return unenforced_header(constraint.unenforced)


def _constrain_calls(
    body: dict[str, Any], fields: Mapping[str, Any], calling: Calling, form: CallForm
) -> CallAnswers:
    """Hold the engine to calls, unless it finds them by itself; and read what it says."""
    native = form.parser is not None and not calling.required
    formats = fields.get("response_format")
    if formats is not None and formats != {"type": "text"}:
        _require_none("tools", fields, "response_format")
    if native and fields.get("raw_output"):
        raise invalid("'raw_output' may not be given with tools that the engine itself reads", "raw_output")
    if not native:
        _require_none("tools", fields, "ignore_eos")
        field = "functions" if calling.older else "tools"
        body["structured_outputs"] = {"grammar": _call_grammar(field, calling, form.arguments)}
    elif calling.parallel is not None:
        body["parallel_tool_calls"] = calling.parallel
    return CallAnswers(calling, native=native, short_ids=form.parser == SHORT_IDS)


@lru_cache(maxsize=128)
def _call_grammar(field: str, calling: Calling, member: str) -> str:
    return sound(field, call_rules(calling, member))


def _require_none(asked: str, fields: Mapping[str, Any], other: str) -> None:
    if fields.get(other):
        raise invalid(f"'{other}' may not be given together with '{asked}': {CONTRADICTIONS[other]}", other)


def cache_salt(scope: str | None, fields: Mapping[str, Any]) -> str | None:
    """Keeps prompt caches apart. The engine takes few characters, so that any key is hashed."""
    if "prompt_cache_max_len" in fields:
        if fields["prompt_cache_max_len"]:
            raise unsupported("prompt_cache_max_len", "only 0, which keeps the prompt out of all caches")
        return secrets.token_hex(32)
    isolation_key = fields.get("prompt_cache_isolation_key")
    if isolation_key is None:
        return None if scope is None else _salt_of_account(scope)
    return _salt(scope or "", isolation_key)


@lru_cache(maxsize=4096)
def _salt_of_account(account_id: str) -> str:
    return _salt(account_id, "")


def _salt(scope: str, isolation_key: str) -> str:
    return hashlib.sha256(f"{scope}\0{isolation_key}".encode()).hexdigest()


def _finish(
    body: dict[str, Any],
    fields: Mapping[str, Any],
    context_length: int,
    legacy: bool,
    smallest: int,
    headers: list[tuple[bytes, bytes]],
    calls: CallAnswers | None = None,
) -> EngineRequest:
    stream = bool(fields.get("stream", False))
    include_usage = "stream_options" in fields and _include_usage(fields, stream)
    if stream:
        # The counts are needed for metering whatever the caller asked for; on every chunk, so that a
        # stream that is cut off is charged for what was generated.
        body["stream"] = True
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    wanted = _wanted_tokens(fields, smallest)
    most = DEFAULT_MAX_TOKENS if wanted is None else wanted
    # The engine gives what the prompt leaves of its context, but refuses to be asked for more than all.
    body["max_tokens"] = min(most, context_length) if context_length else most
    exact = fields.get("context_length_exceeded_behavior") == "error"
    session = fields.get("prompt_cache_key") or fields.get("user")
    extras = _extras(fields)
    if extras is not None:
        body |= extras.body
    return EngineRequest(
        body, stream, include_usage, legacy, wanted if exact else None, headers, calls, extras, session
    )


def _wanted_tokens(fields: Mapping[str, Any], smallest: int) -> int | None:
    if "max_tokens" in fields and "max_completion_tokens" in fields:
        raise invalid("only one of 'max_tokens' and 'max_completion_tokens' may be given", "max_tokens")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in fields:
            return int(AT_LEAST[smallest](name, fields[name]))
    return None


def _include_usage(fields: Mapping[str, Any], stream: bool) -> bool:
    if not stream:
        raise invalid("'stream_options' may only be given with 'stream': true", "stream_options")
    options = mapping("stream_options", fields["stream_options"])
    only("stream_options", options, {"include_usage"})
    wanted = options.get("include_usage")
    return boolean("stream_options.include_usage", wanted) if wanted is not None else False


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
    wanted, top = fields.get("logprobs"), fields.get("top_logprobs")
    if wanted is True:
        return {"logprobs": top or 0}
    if top:
        raise invalid("'top_logprobs' may only be given with 'logprobs': true", "top_logprobs")
    if wanted is None or wanted is False:
        return {}
    return {"logprobs": integer(0, 5)("logprobs", wanted)}


def _extras(fields: Mapping[str, Any]) -> Extras | None:
    """None where nothing is to be told besides."""
    if EXTRAS.isdisjoint(fields):
        return None
    chat = "messages" in fields
    extras = Extras(
        echo=chat and bool(fields.get("echo")),
        raw_output=bool(fields.get("raw_output")),
        perf_metrics=bool(fields.get("perf_metrics_in_response")),
        token_ids=bool(fields.get("return_token_ids")),
        new_logprobs=not chat and fields.get("logprobs") is True,
    )
    plain = Extras(token_ids=extras.token_ids)
    return None if extras == plain else extras


def _refuse_echo(fields: Mapping[str, Any]) -> None:
    """In a chat the prompt is told as text, before an answer in words."""
    if fields.get("echo"):
        for other in ("logprobs", "tools", "functions"):
            _require_none("echo", fields, other)


def _thinking(fields: Mapping[str, Any], form: CallForm) -> dict[str, Any]:
    """How much the model is to think, as its template is told."""
    effort, field = _effort(fields)
    if effort is None:
        return {}
    if effort not in form.efforts:
        known = ", ".join(form.efforts)
        hint = f"the model knows {known}" if known else "the model's template knows none"
        raise invalid(f"Invalid reasoning effort: {effort}: {hint}", field)
    told: dict[str, Any] = {"enable_thinking": effort != "none"}
    return {"chat_template_kwargs": told | ({} if effort == "none" else {"reasoning_effort": effort})}


def _effort(fields: Mapping[str, Any]) -> tuple[str | None, str]:
    """The effort and the field that says it."""
    if "thinking" in fields:
        if "reasoning_effort" in fields:
            raise invalid("only one of 'thinking' and 'reasoning_effort' may be given", "thinking")
        asked = mapping("thinking", fields["thinking"])
        only("thinking", asked, {"type", "budget_tokens"})
        if asked.get("budget_tokens") is not None:
            raise unsupported("thinking.budget_tokens", "the engine does not count what is thought")
        return SWITCH[one_of(*SWITCH)("thinking.type", asked.get("type"))], "thinking"
    effort = fields.get("reasoning_effort")
    if isinstance(effort, bool):
        effort = "medium" if effort else "none"
    if isinstance(effort, int):
        raise unsupported("reasoning_effort", "as a number: the engine does not count what is thought")
    return effort if effort is None else one_of(*EFFORTS)("reasoning_effort", effort), "reasoning_effort"


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
