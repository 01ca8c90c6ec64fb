"""`docs/inference.md`: the gateway's endpoints, each request field, and what constrains an answer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from starlette.routing import Route

from controlplane.checks.tool_calls import ROWS
from controlplane.config import Settings
from docs.generator.markdown import code, listed, page, prose, table
from gateway import resolver
from gateway.app import INFERENCE_PREFIXES, NotAllowed, create_app
from gateway.checks import Check
from gateway.constraints import limits
from gateway.constraints.formats import UNENFORCED_HEADER
from gateway.constraints.schema import FORMATS, OF_TYPE, UNENFORCED, UNENFORCED_OF_TYPE
from gateway.embeddings import parameters as embeddings
from gateway.errors import GatewayError
from gateway.limits import Limits
from gateway.media.fetching import MOST_REDIRECTS
from gateway.media.parts import MOST_IMAGES
from gateway.media.sizes import MOST_PIXELS, MOST_PIXELS_TOGETHER
from gateway.media.types import NAMES as NAMES_OF_IMAGES
from gateway.messages import parameters as messages
from gateway.parameters import PARAMETERS, Parameter
from gateway.responses import parameters as responses
from workers.engine_plugins.grammars import MOST_SECONDS, SECONDS_PER_TOKEN

SUMMARIES = {
    "POST /chat/completions": "Answer a conversation; with `stream`, as server-sent events",
    "POST /completions": "Continue a prompt; with `stream`, as server-sent events",
    "POST /embeddings": "Turn texts into vectors",
    "POST /rerank": "Order documents by their relevance to a query",
    "POST /messages": "Answer a conversation in Anthropic's shape; with `stream`, as its events",
    "POST /responses": "Answer in the shape of OpenAI's responses; with `stream`, as its events",
    "GET /responses": "List the stored responses of the account, the newest first",
    "GET /responses/{response_id}": "Show a stored response",
    "DELETE /responses/{response_id}": "Delete a stored response",
    "GET /responses/{response_id}/input_items": "List the items that a stored response was asked with",
    "POST /responses/{response_id}/cancel": "Refused: no response runs in the background",
    "GET /models": "List the models that the caller can query now",
    "GET /models/{model}": "Show one model that the caller can query",
}

IN_API_PAGE = prose("""
What the gateway answers itself, with every request field, function calling and structured output, stands
in [Inference](inference.md).
""")

FIELDS = prose("""
Both ways to ask for text take these fields. Nothing is accepted and then ignored: a field is passed on
to the engine, translated for it, a hint that never changes the answer, or refused by name. A field that
is not in this table is refused as unknown. A field that is null counts as not sent, and so does a
refused one that is false.
""")

EMBEDDING = prose("""
Both are asked of models of kind `EMBEDDING_MODEL` (`firectl create model --embedding`): `embeddings` of any
whose architecture embeds or writes text, `rerank` of those with one score for a pair, as
`BertForSequenceClassification` with one label. `modules.json` and `1_Pooling/config.json` of
sentence-transformers say how tokens are pooled. A model that is asked for what it does not do says so;
documents are never ordered by the vectors of a model that embeds.
""")

MESSAGES = prose("""
What holds for chats holds for messages: they are translated into one. Errors have Anthropic's shape, and the
key may come as `x-api-key`. Clients take the address without `/v1`, or with `/inference`. `usage` has what
was read from the prompt cache apart. A result with `is_error` is shown to the model with the words "The call
failed:" before it. `thinking` of the type `disabled` is taken by models that do not think.
""")

RESPONSES = prose("""
What holds for chats holds for responses: they are translated into one. A response is stored unless `store` is
false, for as many days as `HEARTH_RESPONSE_DAYS` says, and only its account sees it. It is written behind the
answer: while PostgreSQL is away responses are answered, and stored when it is back; when too many wait for
that, those that are to be stored are refused with 503. A stream that goes wrong ends with `response.failed`.
""")

MEDIA = prose("""
Messages of users and results of tools may hold parts of the type `image_url`, for models that take images,
and `input_audio` (`data` in base64, `format` `wav` or `mp3`), for models that take audio; both are read from
the model's architecture. An image is given in the request, as `data:…;base64,…`, or as a URL, which the
gateway fetches before an engine is asked: from public addresses only, after redirects as well. The engine
gets bytes whose type was read from them. `detail` is a hint. `video_url` is refused. A sound may have any
rate of samples, and lasts ten minutes at most; one that is damaged is refused. On a CPU most families of
models that take images do not start: they need torchvision, of which there is no build for it among Python's
packages.
""")

NAMES = prose("""
`model` takes any of these forms. What the caller cannot reach is not found, as if it did not exist. A
model that is deployed in several places is asked at its default one.
""")

ROUTED = prose("""
Of a deployment's ready replicas one is chosen for each request. Requests for one addon go to one replica, so
that its weights stay there; so do requests with the same header `x-session-affinity`, the same
`prompt_cache_key`, or else the same `user`; and so do prompts that begin alike for the first thousand
characters. A deployment with `enableSessionAffinity` spreads the requests for an addon by their session. A
replica that has more than 1.25 of an equal share of the requests is passed over, in an order
that each of these has of its own. All others go where the least is in flight. A replica that cannot be
reached, or fails before the first byte of its answer, is replaced by another once. One that is taken out of
service gets nothing new, and has a minute to finish what it has begun.

Hundreds of addons may be loaded on one deployment. An engine holds 32 of them in memory and four in one
batch, or as many as [its deployment says](operations.md#addons-on-the-device); the one that was used longest
ago makes room, never one that is in use, and is read again from the node's disk when it is asked for.
""")

CACHED = prose("""
Prompts that begin alike are read once. `usage.prompt_tokens_details.cached_tokens` and the header
`fireworks-cached-prompt-tokens` tell how much was found in a cache. On a deployment of another account each
account has a cache of its own. `prompt_cache_isolation_key` parts it further, and `prompt_cache_max_len: 0`
keeps a prompt out of all caches. The header `fireworks-server-time-to-first-token` has seconds, as
`perf_metrics_in_response` tells in more detail.
""")

CALLING = prose(f"""
With `tool_choice` `required`, `any`, a named function or `{{"type": "function"}}`, the engine is held to the
text of a call of an offered function, so that any chat model calls; the gateway reads the call, checks its
arguments against the schema once more, and answers with it, or with an error. A call that `max_tokens` or a
`stop` text cuts off is an error, too (400, `TOOL_CALL_CUT_OFF`); one that is wrong in another way is 502,
`WRONG_TOOL_CALL`. In a stream the error is the last event. There is one call in an answer, or up to
{limits.CALLS} with `parallel_tool_calls: true`.

With `auto`, a model whose template shows tools in a form that the engine reads writes its calls in its own
way, and the engine's parser finds them: the table below tells which. Those calls are checked to name an
offered function and to have an object as arguments, and where a function is `strict`, to fit its schema. Any
other model is told of the functions in words before the conversation, and is held to plain words or a whole
call. A template with the role `functions`, as FireFunction's, gets such a message.

`none` is the same as no tools. `strict` refuses parameters that cannot be enforced in full.
`functions` and `function_call` are answered with `function_call` and end with the reason `function_call`. A
message of the role `functions` with a JSON list of functions offers these, to any model. Results may be
messages of the role `tool` or the older `function`; a result without `tool_call_id` belongs to the next call
that waits for one. Calls and results are shown as text to a model whose template does not show calls.
""")

STRUCTURED = prose(f"""
`response_format` works in chat and in completions, streamed or not. The engine is held to the format while it
generates: the answer fits it, unless `max_tokens` cuts it off, which `finish_reason: length` says. The schema
is not shown to the model. Whitespace is bounded everywhere to one space, or a line break with an indentation.

An object with `properties` is closed, as if `unevaluatedProperties` were false, unless it has
`additionalProperties`. Members come in the order of the schema. `$ref` leads to places in the same schema,
and may recurse. `allOf` is merged. Everything else that a schema says and no answer is held to is listed
in the answer's header `{UNENFORCED_HEADER}`, as `keyword at #/place`; with `strict: true` such a schema is
refused.
""")

GRAMMAR = prose("""
`{"type": "grammar", "grammar": "root ::= …"}` takes grammars in the notation of llama.cpp: rules as
`name ::= …` from the rule `root` on, texts in quotes, classes such as `[a-z]` and `[^\\n]`, `.` for any
character, `|`, parentheses, `*`, `+`, `?`, `{m}`, `{m,}` and `{m,n}`, comments from `#` on, and the escapes
`\\n`, `\\r`, `\\t`, `\\xXX`, `\\uXXXX` and `\\UXXXXXXXX`. A rule ends with its line, except inside
parentheses, after `::=` and next to `|`. A mistake is answered with 400 and its line and column.

Refused are grammars that would keep an engine busy without end: rules that no text ends, repetitions of what
may be empty inside of recursive rules, and counted repetitions and recursion that can be read in too many
ways. Moderate ambiguity, as of `expr ::= expr "+" expr | [0-9]+`, is taken, but costs the engine more with
every token: an answer whose grammar has taken the engine too long is cut, and ends with `finish_reason`
`length`.
""")


def inference_page() -> str:
    prefixes = " and under ".join(code(prefix) for prefix in INFERENCE_PREFIXES)
    return page(
        "Inference",
        f"These answer under {prefixes}, in the shapes that OpenAI's clients know.",
        table(("request", "what it does"), [(code(name), SUMMARIES[name]) for name in gateway_endpoints()]),
        "## How a model is named",
        NAMES,
        _naming_forms(),
        "## Request fields",
        FIELDS,
        table(("field", "of", "what becomes of it", "value", "note"), map(_field, PARAMETERS)),
        *_other_fields(),
        "## Where a request goes",
        ROUTED,
        "## Prompt caches",
        CACHED,
        "## Images and audio",
        MEDIA,
        table(("of", "at most"), _media_limits()),
        "## Function calling",
        CALLING,
        table(("the chat template holds", "types", "parser"), _parsers()),
        "## Structured output",
        STRUCTURED,
        table(("type", "enforced", "listed in the header"), _keywords()),
        "### Grammars",
        GRAMMAR,
        "### Limits",
        table(("of", "at most"), _limits()),
    )


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


def _naming_forms() -> str:
    """The table in the resolver's own words."""
    lines = (inspect.getdoc(resolver) or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def _field(parameter: Parameter) -> tuple[str, str, str, str, str]:
    value = _rule(parameter.check) if parameter.check else ""
    return code(parameter.name), parameter.of, parameter.fate, value, parameter.note


OTHERS = (
    ("messages", "### Messages", MESSAGES, messages.PARAMETERS),
    ("responses", "### Responses", RESPONSES, responses.PARAMETERS),
    ("embeddings", "### Embeddings and rerank", EMBEDDING, embeddings.EMBEDDINGS),
    ("rerank", "", "", embeddings.RERANK),
)
"""Endpoint, heading, text and fields of what is asked in other shapes than a chat's."""


def _other_fields() -> Iterator[str]:
    for endpoint, heading, text, parameters in OTHERS:
        if heading:
            yield heading
            yield text
        yield table(
            (f"field of {endpoint}", "what becomes of it", "value", "note"),
            [(name, fate, value, note) for name, _, fate, value, note in map(_field, parameters)],
        )


def _media_limits() -> Iterator[tuple[str, str]]:
    limits = Limits()
    yield "images of a request", str(MOST_IMAGES)
    yield "pixels of an image", f"{MOST_PIXELS:,}"
    yield "pixels of all images of a request", f"{MOST_PIXELS_TOGETHER:,}"
    yield "bytes of an image that is fetched", f"{limits.image_bytes:,}"
    yield "seconds that it may take", f"{limits.image_seconds:g}"
    yield "redirects on the way", str(MOST_REDIRECTS)
    yield "bytes of a request with all that is given in it", f"{limits.body_bytes:,}"
    yield "types of images", NAMES_OF_IMAGES


def _rule(check: Check) -> str:
    """What a check asks for, in the words in which it refuses a value that is nothing at all."""
    try:
        check("field", object())
    except GatewayError as error:
        _, _, wanted = error.message.partition(" must be ")
        return wanted.partition(", not ")[0]
    raise AssertionError(f"{check} takes anything")


def _parsers() -> Iterator[tuple[str, str, str]]:
    for marks, types, parser in ROWS:
        shown = " and ".join(code(mark.strip("`")) for mark in marks)
        yield shown, listed(types), code(parser)


def _keywords() -> Iterator[tuple[str, str, str]]:
    for kind, keywords in OF_TYPE.items():
        yield code(kind), listed(keywords), listed(UNENFORCED_OF_TYPE[kind])
    yield "any", listed(("$ref", "enum", "const", "anyOf", "oneOf", "allOf")), listed(UNENFORCED)
    yield "formats", listed(FORMATS), "all others"
    yield (
        "numbers",
        "bounds of integers up to 100 apart; at least 0, and of integers at least 1",
        "other bounds",
    )
    yield "`oneOf`", "choices of different types, or with different constants in a required member", "others"


def _limits() -> Iterator[tuple[str, str]]:
    yield "characters of a grammar", f"{limits.GRAMMAR_CHARACTERS:,}"
    yield "rules of a grammar", f"{limits.GRAMMAR_RULES:,}"
    yield "the count of a repetition", f"{limits.REPEATS:,}"
    yield (
        "seconds of a core for one answer's grammar",
        f"{MOST_SECONDS:g}, and {SECONDS_PER_TOKEN:g} for each token",
    )
    yield "groups inside of each other", f"{limits.GROUP_DEPTH:,}"
    yield "bytes of a schema, and of all functions together", f"{limits.SCHEMA_BYTES:,}"
    yield "parts of a schema", f"{limits.SCHEMA_NODES:,}"
    yield "levels of a schema", f"{limits.SCHEMA_DEPTH:,}"
    yield "values of an `enum`", f"{limits.ENUM_VALUES:,}"
    yield "lengths and counts of items that are enforced", f"{limits.COUNTED:,}"
    yield "functions", f"{limits.TOOLS:,}"
