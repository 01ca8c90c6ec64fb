"""Pictures and a real engine, with a tiny model that is uploaded, started as workers do it, and asked."""

from __future__ import annotations

import base64
import io
import json
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.gateway.engines import engine_running
from tests.gateway.media.eyes import TOKENS_OF_A_TILE, save_eyes
from tests.gateway.media.pictures import HEADER, PNG, Pictures, fetcher
from workers.validation.model_files import BaseModelReport, validate_base_model

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def picture(color: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(content, "PNG")
    return content.getvalue()


def as_data(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def uploaded(settings: Settings, folder: Path) -> BaseModelReport:
    """What is known of the model once its files have been looked through."""
    store, prefix = ObjectStore.from_settings(settings), f"{uuid.uuid4()}/"
    store.ensure_bucket()
    for path in folder.iterdir():
        store.put_bytes(prefix + path.name, path.read_bytes())
    return validate_base_model(store, prefix, {path.name: path.stat().st_size for path in folder.iterdir()})


@dataclass
class Eyes:
    client: httpx.Client
    gateway: Any

    def ask(self, *urls: str, **more: Any) -> httpx.Response:
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        content = [{"type": "text", "text": "What is this?"}, *parts]
        asked = {"model": "eyes", "max_tokens": 6, "temperature": 0, "logprobs": True, **more}
        return self.client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], **asked}
        )

    def seen(self, *urls: str) -> tuple[list[float], int]:
        """How likely the answer's tokens were, and how many tokens the prompt had."""
        answer = self.ask(*urls)
        assert answer.status_code == 200, answer.text
        said = answer.json()["choices"][0]["logprobs"]["content"]
        return [token["logprob"] for token in said], answer.json()["usage"]["prompt_tokens"]


@pytest.fixture
def eyes(world: Any, settings: Settings, start_gateway: Any, tmp_path: Path) -> Iterator[Eyes]:
    model = tmp_path / "model"
    save_eyes(model)
    report = uploaded(settings, model)
    assert (report.architecture, report.supports_image_input) == ("Idefics3ForConditionalGeneration", True)
    with engine_running(model, tmp_path, kv_cache_gib=1) as url:
        facts = {"images": report.supports_image_input, "context_length": report.context_length}
        base = world.add_base("acme", "eyes", tool_template=report.chat_template, **facts)
        deployment = world.add_deployment("acme", "main", base)
        world.add_replica(deployment, url, "base-uid")
        world.load("acme", "eyes-1", base, deployment)
        running = start_gateway()
        running.gateway.images = fetcher()
        client = running.http(world.keys["acme"])
        client.timeout = httpx.Timeout(120)
        yield Eyes(client, running.gateway)


def test_a_model_sees_what_it_is_shown(eyes: Eyes, pictures: Pictures) -> None:
    red, blue = picture("red"), picture("blue")
    nothing, words = eyes.seen()
    shown, tokens = eyes.seen(as_data(red))
    assert tokens > words + 5 * TOKENS_OF_A_TILE
    assert eyes.seen(as_data(blue)) != (shown, tokens)
    assert nothing != shown

    pictures.content = red
    assert eyes.seen(f"{pictures.url}/red") == (shown, tokens), "the same, whoever fetches it"
    assert eyes.seen(as_data(red), f"{pictures.url}/red")[1] == 2 * tokens - words

    lines = [
        line for line in eyes.ask(as_data(red), stream=True).text.splitlines() if line.startswith("data: {")
    ]
    assert json.loads(lines[-1][6:])["usage"]["prompt_tokens"] == tokens

    pictures.content = PNG.replace(
        HEADER, HEADER.replace(struct.pack(">II", 3, 2), struct.pack(">II", 70_000, 70_000))
    )
    refused = eyes.ask(f"{pictures.url}/huge")
    assert refused.status_code == 400
    assert "70,000 × 70,000 pixels" in refused.json()["error"]["message"]
    assert eyes.ask(as_data(b"\x89PNG\r\n\x1a\n" + b"no picture")).status_code == 400
    assert eyes.seen(as_data(red)) == (shown, tokens), "the engine goes on"
