"""Requests made from `/openapi.json`, well formed and not: none finds a 5xx or an answer of another shape."""

from __future__ import annotations

import os
from functools import cache
from itertools import cycle
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from docs.generator.api import openapi

pytestmark = pytest.mark.fuzz

CASES = int(os.environ.get("HEARTH_FUZZ_CASES", "20000"))
SEED = int(os.environ.get("HEARTH_FUZZ_SEED", "1"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

# Ids that are there, so that cases come further than to "not found".
KNOWN = {
    "account_id": "hearth",
    "user_id": "ada",
    "model_id": "uploading",
    "dataset_id": "uploading",
    "deployment_id": "live",
    "deployed_model_id": "served",
    "deployment_shape_id": "shape",
    "secret_id": "secret",
    "job_id": "job",
    "supervised_fine_tuning_job_id": "job",
}
# The same for what a body names.
KNOWN_IN_BODIES = {
    "baseModel": "base",
    "model": "base",
    "dataset": "chat",
    "deployment": "live",
}


@cache
def operations() -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(openapi())
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def aimed(case: Any, aim: list[bool]) -> Any:
    """The case with some of the names in its path and its body replaced by ones that exist."""
    wanted = cycle(aim)
    for name in case.path_parameters or {}:
        if next(wanted) and name in KNOWN:
            case.path_parameters[name] = KNOWN[name]
    if isinstance(case.body, dict):
        for name, known in KNOWN_IN_BODIES.items():
            if next(wanted) and isinstance(case.body.get(name), str):
                case.body[name] = known
    return case


def creating_first(label: str) -> tuple[int, str]:
    """What deletes comes last, or there would soon be nothing left to aim at."""
    method, path = label.split(" ", 1)
    return (["POST", "PATCH", "GET", "DELETE"].index(method) + 4 * path.endswith(":delete"), path)


@pytest.mark.parametrize("label", sorted(operations(), key=creating_first))
def test_no_request_finds_a_mistake_of_the_server(label: str, target: httpx.Client) -> None:
    operation = operations()[label]
    headers = dict(target.headers)
    base_url = str(target.base_url).rstrip("/")
    cases = st.one_of(
        operation.as_strategy(GenerationMode.POSITIVE), operation.as_strategy(GenerationMode.NEGATIVE)
    )
    often = st.lists(st.sampled_from([True, True, True, False]), min_size=5, max_size=5)

    @seed(SEED)
    @settings(
        max_examples=-(-CASES // len(operations())),
        phases=[Phase.generate],  # what fails is told as it is: shrinking takes long and is for a person
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, aim=often)
    def ask(case: Any, aim: list[bool]) -> None:
        sent = aimed(case, aim)
        answer = sent.call(base_url=base_url, headers={"Authorization": headers["authorization"]})
        sent.validate_response(answer, checks=CHECKS)

    ask()
