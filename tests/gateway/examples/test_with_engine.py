"""The documents' examples for inference, through the published packages as they were before their 1.0 and as
they are, against a real engine whose model was taught tools. examples.yaml is the table of them, with the
line of the document that each stands for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.examples.asking_all import wrong_answers
from tests.gateway.examples.table import clients_of, examples

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

# The others are asked where there is an engine for them.
ASKED = [example for example in examples() if example.topic not in ("embeddings", "pictures")]


@pytest.fixture
def url(world: Any, real_engine: Any, start_gateway: Any) -> str:
    """A gateway that serves the engine under the name `taught`, whose template shows tools."""
    base = world.add_base("acme", "taught", tool_template=real_engine.tool_template, context_length=1024)
    deployment = world.add_deployment("acme", "taught", base)
    world.add_replica(deployment, real_engine.url, "base-uid")
    world.load("acme", "taught-1", base, deployment)
    return str(start_gateway().url)


@pytest.mark.parametrize("client", clients_of(ASKED))
def test_an_example_of_the_documents_does_what_they_say(url: str, world: Any, client: str) -> None:
    assert wrong_answers(url, world.keys["acme"], client, ASKED) == []
