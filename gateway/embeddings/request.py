"""Requests to models that embed texts, and to those that score pairs of them, as the engine reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.checks.tool_calls import PLAIN_TEMPLATE, CallForm
from gateway.dialect import EngineRequest, cache_salt, given
from gateway.embeddings.parameters import EMBEDDINGS, MOST_TEXTS, RERANK
from gateway.errors import invalid
from gateway.parameters import Fate, Parameter

KNOWN_EMBEDDINGS = {each.name: each for each in EMBEDDINGS}
KNOWN_RERANK = {each.name: each for each in RERANK}


def translate_embeddings(
    sent: Mapping[str, Any],
    context_length: int,
    cache_scope: str | None = None,
    form: CallForm = PLAIN_TEMPLATE,
) -> EngineRequest:
    """400 naming the field when the request is none."""
    fields, body = _checked(sent, KNOWN_EMBEDDINGS, cache_scope)
    body["input"] = _input(fields.get("input"))
    if "normalize" in fields:
        body["use_activation"] = fields["normalize"]
    return _whole(body)


def translate_rerank(
    sent: Mapping[str, Any],
    context_length: int,
    cache_scope: str | None = None,
    form: CallForm = PLAIN_TEMPLATE,
) -> EngineRequest:
    """400 naming the field when the request is none."""
    fields, body = _checked(sent, KNOWN_RERANK, cache_scope)
    if not body.get("query"):
        raise invalid("'query' must be a non-empty string", "query")
    body["documents"] = _texts("documents", fields.get("documents"))
    return _whole(body)


def _checked(
    sent: Mapping[str, Any], known: Mapping[str, Parameter], cache_scope: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that ask for something, and those of them that the engine reads as they are."""
    fields = given(sent, known)
    for name, value in fields.items():
        if (check := known[name].check) is not None:
            check(name, value)
    body = {name: value for name, value in fields.items() if known[name].fate is Fate.PASSED}
    salt = cache_salt(cache_scope, fields)
    return fields, body | ({"cache_salt": salt} if salt else {})


def _whole(body: dict[str, Any]) -> EngineRequest:
    return EngineRequest(
        body, stream=False, include_usage=False, legacy_logprobs=False, exact_max_tokens=None
    )


def _input(value: Any) -> Any:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        if _is_tokens(value):
            return value
        if all(isinstance(each, list) and _is_tokens(each) for each in value):
            _require_few("input", value)
            return value
    return _texts("input", value, "a non-empty string, token ids, or a list of either")


def _texts(field: str, value: Any, wanted: str = "a list of non-empty strings") -> list[str]:
    good = isinstance(value, list) and value and all(isinstance(each, str) and each for each in value)
    if not good:
        raise invalid(f"'{field}' must be {wanted}", field)
    _require_few(field, value)
    return list(value)


def _require_few(field: str, value: list[Any]) -> None:
    if len(value) > MOST_TEXTS:
        raise invalid(f"'{field}' may hold {MOST_TEXTS} texts at most", field)


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and all(type(each) is int and 0 <= each < 2**31 for each in value)
