"""docs/api.md, docs/inference.md and docs/firectl.md say what the code does, and all of it."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from cli.language.registry import Command, all_commands
from cli.main import app
from docs.generator import inference
from docs.generator.api import Endpoint, endpoints, openapi
from docs.generator.firectl import command_words, find_command
from docs.generator.pages import PAGES
from gateway.parameters import PARAMETERS
from tests.docs.shown import ROOT

ENDPOINTS = list(endpoints(openapi()))


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_makes_now(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), f"docs/{name} is out of date: run `make docs`"


@pytest.mark.parametrize("entry", all_commands(), ids=lambda entry: " ".join(command_words(entry)[0]))
def test_every_command_and_all_it_takes_has_help(entry: Command) -> None:
    root: Any = typer.main.get_command(app)
    for words in command_words(entry):
        command = find_command(root, words)
        assert command.help, words
        assert [param.name for param in command.params if not param.hidden and not param.help] == []


@pytest.mark.parametrize("entry", all_commands(), ids=lambda entry: " ".join(command_words(entry)[0]))
def test_the_page_shows_every_order_of_a_command(entry: Command) -> None:
    page = (ROOT / "docs" / "firectl.md").read_text(encoding="utf-8")
    for words in command_words(entry):
        assert f"`firectl {' '.join(words)}" in page


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")
def test_every_endpoint_has_a_summary_and_stands_in_the_page(endpoint: Endpoint) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    # FastAPI makes a summary of the function's name where none is given.
    made_up = endpoint.operation["operationId"].split("_v1_")[0].replace("_", " ").title()
    assert endpoint.summary and endpoint.summary != made_up
    assert f"| `{endpoint.method} {endpoint.path}` | {endpoint.summary} |" in page


def test_every_inference_endpoint_has_a_summary() -> None:
    assert set(inference.gateway_endpoints()) == inference.SUMMARIES.keys()


def test_every_inference_field_stands_in_the_page_once_for_each_endpoint() -> None:
    page = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    assert [each.name for each in PARAMETERS if page.count(f"\n| `{each.name}` | {each.of} |") != 1] == []
    for endpoint, _, _, parameters in inference.OTHERS:
        fields = page.partition(f"| field of {endpoint} |")[2].partition("\n\n")[0]
        assert [each.name for each in parameters if fields.count(f"\n| `{each.name}` |") != 1] == []
