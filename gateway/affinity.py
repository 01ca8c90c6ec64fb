"""What makes a request belong to a replica: its addon, its session, or how its prompt begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from gateway.dialect import EngineRequest
from gateway.snapshot import Route

PREFIX = 1000
"""Characters, or tokens, of a prompt's beginning. A shorter prompt is read anew in no time."""


def affinity_of(route: Route, request: EngineRequest) -> str | None:
    """The first of these that there is; None for a request that is as well answered by any replica.

    An addon comes first: reading its weights takes longer than reading a prompt, and as all of its requests
    come together, so do its sessions. A deployment that keeps sessions has room for its addons everywhere.
    """
    addon = "" if route.is_base else f"{route.account_id}/{route.id}"
    salt = request.body.get("cache_salt", "")
    if request.session is not None and (route.is_base or route.deployment.keeps_sessions):
        return _digest(f"session {salt} {addon} {request.session}")
    if addon:
        return f"addon {addon}"
    prefix = _prefix(request.body)
    return None if prefix is None else _digest(f"prefix {salt} {prefix}")


def _prefix(body: dict[str, Any]) -> str | None:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, list):
        return None if len(prompt) < PREFIX else repr(prompt[:PREFIX])
    text = prompt if isinstance(prompt, str) else _beginning(body.get("messages", ()))
    return None if len(text) < PREFIX else text[:PREFIX]


def _beginning(messages: list[dict[str, Any]]) -> str:
    found, size = [], 0
    for text in _texts(messages):
        found.append(text)
        size += len(text)
        if size >= PREFIX:
            break
    return "\n".join(found)


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if isinstance(text := part.get("text"), str):
                yield text


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
