"""An addon's own chat template on a real engine: a chat has the tokens that it has in training."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.addon_files import save_addon
from tests.gateway.conftest import MODEL
from tests.training.styles import spec_of
from workers.runtimes.client import EngineClient
from workers.training.examples.encoding import IGNORED, Encoder
from workers.training.examples.generic import GENERIC_TEMPLATE
from workers.training.examples.reading import reading_of, start_of
from workers.training.examples.rows import RawRow
from workers.training.examples.tokenizer import load_tokenizer, stop_token_ids

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ROW = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": "Rain, 7°.", "weight": 0},
        {"role": "user", "content": " And\n in Rome? "},
        {"role": "assistant", "content": "Sun."},
    ]
}
WITH_TOOLS = {"messages": [*ROW["messages"][1:]], "tools": [TOOL]}
BY_MODE = (
    "{% if mode == 'generate' %}{{ bos_token }}{% endif %}"
    "{% set mark = unk_token if mode == 'train' else '' %}"
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{{ mark + m.content + eos_token + mark }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if messages[-1].role != 'assistant' %}<assistant>{% endif %}"
)
MARKED = (
    '{{ bos_token }}{% if tools %}{{ tools | tojson }} <|python_tag|>{# "parameters" #}{% endif %}'
    "{% for m in messages %}\n\n{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content | trim }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}\n\nassistant: {% endif %}"
)
CASES = {
    "by-mode": (BY_MODE, ROW),
    "marked": (MARKED, ROW),
    "with-tools": (MARKED, WITH_TOOLS),
    "generic": (GENERIC_TEMPLATE, ROW),
}


@pytest.fixture
def client(world: Any, real_engine: Any, start_gateway: Any, tmp_path: Path) -> httpx.Client:
    """`acme` serves one addon for each case, beside their base."""
    base = world.add_base("acme", "llama", tool_template=real_engine.tool_template, context_length=1024)
    deployment = world.add_deployment("acme", "main", base)
    replica = world.add_replica(deployment, real_engine.url, "base-uid")
    world.load("acme", "llama-1", base, deployment)
    with EngineClient(real_engine.url) as engine:
        for seed, (name, (template, row)) in enumerate(CASES.items()):
            uid = uuid.uuid4().hex
            save_addon(tmp_path / uid, seed)
            engine.load_adapter(uid, str(tmp_path / uid))
            model = world.add_addon("acme", name, base, template=template, tools="tools" in row)
            world.prove(replica, world.load("acme", f"{name}-1", model, deployment), uid)
    running = start_gateway()
    made: httpx.Client = running.http(world.keys["acme"])
    made.timeout = httpx.Timeout(120)
    return made


def trained_prompt(template: str, row: dict[str, Any], folder: Path) -> list[int]:
    """What stands before the answer in training."""
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row))
    tokenizer = load_tokenizer(MODEL, "quickstart")
    encoder = Encoder(tokenizer, stop_token_ids(MODEL, tokenizer))
    with reading_of(spec_of(template), tokenizer).open(encoder) as reader:
        start = start_of(reader, encoder, [file], tokenizer)
        [example] = encoder.encode(reader.read(RawRow("line 1", row)), start.leading)
    assert not start.prompt_differs
    return example.ids[: next(at for at, label in enumerate(example.labels) if label != IGNORED)]


def asked(row: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": each["role"], "content": each["content"]} for each in row["messages"][:-1]]
    return {**row, "messages": messages, "max_tokens": 4, "temperature": 0}


def test_an_addon_is_asked_by_its_own_template_as_it_was_trained(
    client: httpx.Client, tmp_path: Path
) -> None:
    for name, (template, row) in CASES.items():
        expected = trained_prompt(template, row, tmp_path)
        told = {} if "tools" in row else {"raw_output": True}
        answer = client.post("/v1/chat/completions", json={"model": name, **asked(row), **told}).json()
        assert answer["usage"]["prompt_tokens"] == len(expected), name
        if told:
            assert answer["choices"][0]["raw_output"]["prompt_token_ids"] == expected, name
        whole = {
            **asked(row),
            "max_tokens": 1025 - len(expected),
            "context_length_exceeded_behavior": "error",
        }
        refused = client.post("/v1/chat/completions", json={"model": name, **whole})
        assert f"the prompt has {len(expected)} tokens" in refused.json()["error"]["message"], name
    base = client.post(
        "/v1/chat/completions", json={"model": "llama", **asked(ROW), "raw_output": True}
    ).json()
    assert base["choices"][0]["raw_output"]["prompt_fragments"][0].startswith("<|bos|><|system|>Be brief.")
