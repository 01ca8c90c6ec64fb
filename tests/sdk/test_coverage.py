"""Every method of the `fireworks-ai` package for the resources that Hearth has finds its endpoint."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from docs.generator.api import openapi

RESOURCES = (
    "accounts",
    "api_keys",
    "datasets",
    "deployment_shape_versions",
    "deployment_shapes",
    "deployments",
    "dpo_jobs",
    "lora",
    "models",
    "secrets",
    "supervised_fine_tuning_jobs",
    "users",
)
VERBS = {"_get": "get", "_post": "post", "_patch": "patch", "_delete": "delete", "_put": "put"}


def requests_of(resource: str) -> Iterator[tuple[str, str, str]]:
    """(method of the class, HTTP method, path) of what a resource's module sends."""
    module = importlib.import_module(f"fireworks.resources.{resource}")
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                verb = "get" if call.func.attr == "_get_api_list" else VERBS.get(call.func.attr)
                for path in paths_in(call.args[0]) if verb and call.args else ():
                    yield function.name, str(verb), path


def paths_in(expression: ast.expr) -> Iterator[str]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/"):
            yield node.value


def anonymous(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_method_has_an_endpoint(resource):
    known = {
        (method, anonymous(path)) for path, operations in openapi()["paths"].items() for method in operations
    }
    sent = list(requests_of(resource))
    assert len(sent) >= 4  # two methods at least, sync and async
    missing = {(name, verb, path) for name, verb, path in sent if (verb, anonymous(path)) not in known}
    assert not missing
