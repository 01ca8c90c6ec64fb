"""Holds every answer that the tests get to what `/openapi.json` says of it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from docs.generator.api import openapi


@cache
def operations() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    """(path, method, operation), the most literal paths first."""
    found = []
    for path, item in openapi()["paths"].items():
        pattern = re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/:]+", re.escape(path)))
        found += [(pattern, method.upper(), operation) for method, operation in item.items()]
    return sorted(found, key=lambda entry: -len(entry[0].pattern))


@cache
def validator(reference: str) -> Any:
    document = openapi()
    return jsonschema_rs.Draft202012Validator({"$ref": reference, "components": document["components"]})


async def check(answer: httpx.Response) -> None:
    """An `httpx` response hook: AssertionError for an answer that the document does not describe."""
    request = answer.request
    operation = next(
        (o for p, m, o in operations() if m == request.method and p.fullmatch(request.url.path)), None
    )
    if operation is None:
        return
    status = str(answer.status_code)
    assert status in operation["responses"], f"{request.method} {request.url.path} answers {status}"
    content = operation["responses"][status].get("content", {}).get("application/json")
    if content is None or "$ref" not in content["schema"]:
        return
    await answer.aread()
    problems = [
        f"{request.method} {request.url.path}: {problem.message} at {list(problem.instance_path)}"
        for problem in validator(content["schema"]["$ref"]).iter_errors(answer.json())
    ]
    assert not problems, problems
