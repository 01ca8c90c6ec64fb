"""The sampling settings of a model's generation_config.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controlplane.checks.problems import ProblemList
from controlplane.storage import ObjectStore
from workers.validation.generation_config import GENERATION_CONFIG, read_generation_config

Upload = Callable[[Mapping[str, bytes]], str]


def read(store: ObjectStore, upload: Upload, content: bytes) -> tuple[dict[str, float], list[str]]:
    problems = ProblemList()
    prefix = upload({GENERATION_CONFIG: content})
    found = read_generation_config(store, prefix, {GENERATION_CONFIG: len(content)}, problems)
    return found, [str(problem) for problem in problems]


def test_settings_have_the_names_that_requests_use(object_store: ObjectStore, upload: Upload) -> None:
    config = {
        "temperature": 0,
        "top_p": 0.95,
        "top_k": -1,
        "min_p": None,
        "max_new_tokens": 5,
        "do_sample": 1,
    }
    found, problems = read(object_store, upload, json.dumps(config).encode())
    assert (found, problems) == ({"temperature": 0, "top_p": 0.95, "top_k": -1, "max_tokens": 5}, [])


def test_a_model_without_the_file_sets_nothing(object_store: ObjectStore) -> None:
    problems = ProblemList()
    assert read_generation_config(object_store, "nowhere/", {}, problems) == {}
    assert not problems


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", -0.1, "a number from 0 to 100"),
        ("temperature", True, "a number from 0 to 100"),
        ("temperature", "hot", "a number from 0 to 100"),
        ("top_p", 0, "a number above 0 and at most 1"),
        ("top_k", 1.5, "an integer from -1 to 16777216"),
        ("max_new_tokens", 0, "an integer from 1 to 16777216"),
        ("presence_penalty", 2.1, "a number from -2 to 2"),
    ],
)
def test_a_setting_that_no_request_could_have_is_told(
    object_store: ObjectStore, upload: Upload, name: str, value: Any, expected: str
) -> None:
    found, problems = read(object_store, upload, json.dumps({name: value}).encode())
    assert found == {}
    assert problems == [f"generation_config.json: {name}: is {json.dumps(value)}; expected {expected}"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"top_k": NaN}'])
def test_a_file_that_is_no_object_is_told(object_store: ObjectStore, upload: Upload, content: bytes) -> None:
    found, problems = read(object_store, upload, content)
    assert found == {}
    assert len(problems) == 1
