"""Pictures, sounds and a real engine, with tiny models that are uploaded, started as workers do it, asked."""

from __future__ import annotations

import base64
import io
import json
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.gateway.engines import engine_running
from tests.gateway.examples.asking_all import wrong_answers
from tests.gateway.examples.table import clients_of, of_topics
from tests.gateway.media.ears import RATE, TOKENS_A_SECOND, save_ears
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
class Asked:
    client: httpx.Client
    report: BaseModelReport

    def ask(self, *parts: Mapping[str, Any], **more: Any) -> httpx.Response:
        content = [{"type": "text", "text": "What is this?"}, *parts]
        asked = {"model": "tiny", "max_tokens": 6, "temperature": 0, "logprobs": True, **more}
        return self.client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], **asked}
        )

    def wrong_answers(self, client: str, values: Mapping[str, str]) -> list[Any]:
        """To the examples of the documents, as that client asks them."""
        url, key = str(self.client.base_url).rstrip("/"), self.client.headers["Authorization"].split()[1]
        return list(wrong_answers(url, key, client, of_topics("pictures"), **values))

    def said(self, *parts: Mapping[str, Any]) -> tuple[list[float], int]:
        """How likely the answer's tokens were, and how many tokens the prompt had."""
        answer = self.ask(*parts)
        assert answer.status_code == 200, answer.text
        said = answer.json()["choices"][0]["logprobs"]["content"]
        return [token["logprob"] for token in said], answer.json()["usage"]["prompt_tokens"]


@pytest.fixture
def serving(world: Any, settings: Settings, start_gateway: Any, tmp_path: Path) -> Any:
    """Uploads a model and serves it."""

    @contextmanager
    def serve(save: Callable[[Path], None]) -> Iterator[Asked]:
        model = tmp_path / "model"
        save(model)
        report = uploaded(settings, model)
        with engine_running(model, tmp_path, kv_cache_gib=1) as url:
            facts = {
                "images": report.supports_image_input,
                "supports_audio_input": report.supports_audio_input,
                "context_length": report.context_length,
            }
            base = world.add_base("acme", "tiny", tool_template=report.chat_template, **facts)
            deployment = world.add_deployment("acme", "main", base)
            world.add_replica(deployment, url, "base-uid")
            world.load("acme", "tiny-1", base, deployment)
            running = start_gateway()
            running.gateway.images = fetcher()
            client = running.http(world.keys["acme"])
            client.timeout = httpx.Timeout(120)
            yield Asked(client, report)

    return serve


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def tone(hertz: int, rate: int = RATE, form: str = "wav") -> dict[str, Any]:
    """A second of it."""
    content = io.BytesIO()
    wave = 0.5 * np.sin(np.arange(rate) / rate * hertz * 2 * np.pi)
    soundfile.write(content, wave, rate, format=form)
    return sound(content.getvalue(), form)


def sound(content: bytes, form: str = "wav") -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def test_a_model_sees_what_it_is_shown(serving: Any, pictures: Pictures) -> None:
    red, blue = picture("red"), picture("blue")
    with serving(save_eyes) as eyes:
        assert (eyes.report.architecture, eyes.report.supports_image_input) == (
            "Idefics3ForConditionalGeneration",
            True,
        )
        nothing, words = eyes.said()
        shown, tokens = eyes.said(image(as_data(red)))
        assert tokens > words + 5 * TOKENS_OF_A_TILE
        assert eyes.said(image(as_data(blue))) != (shown, tokens)
        assert nothing != shown

        pictures.content = red
        fetched = image(f"{pictures.url}/red")
        assert eyes.said(fetched) == (shown, tokens), "the same, whoever fetches it"
        assert eyes.said(image(as_data(red)), fetched)[1] == 2 * tokens - words

        told = {"PICTURE": f"{pictures.url}/red", "PICTURE_IN_BASE64": as_data(red), "TOKENS": str(tokens)}
        for client in clients_of(of_topics("pictures")):
            assert eyes.wrong_answers(client, told) == []

        streamed = eyes.ask(image(as_data(red)), stream=True).text.splitlines()
        lines = [line for line in streamed if line.startswith("data: {")]
        assert json.loads(lines[-1][6:])["usage"]["prompt_tokens"] == tokens

        pictures.content = PNG.replace(
            HEADER, HEADER.replace(struct.pack(">II", 3, 2), struct.pack(">II", 70_000, 70_000))
        )
        refused = eyes.ask(image(f"{pictures.url}/huge"))
        assert refused.status_code == 400
        assert "70,000 × 70,000 pixels" in refused.json()["error"]["message"]
        assert eyes.ask(image(as_data(b"\x89PNG\r\n\x1a\n" + b"no picture"))).status_code == 400
        assert eyes.said(image(as_data(red))) == (shown, tokens), "the engine goes on"


def test_a_model_hears_what_it_is_played(serving: Any) -> None:
    with serving(save_ears) as ears:
        assert (ears.report.architecture, ears.report.supports_audio_input) == (
            "Qwen2AudioForConditionalGeneration",
            True,
        )
        _, words = ears.said()
        heard, tokens = ears.said(tone(440))
        assert tokens > words + TOKENS_A_SECOND
        assert ears.said(tone(880))[0] != heard
        assert ears.said(tone(440)) == (heard, tokens)
        for other in (tone(440, form="mp3"), tone(440, rate=44_100), tone(440, rate=8_000)):
            said, long = ears.said(other)
            assert (long, said) == (tokens, pytest.approx(heard, abs=0.3)), "the same, told in another way"

        refused = ears.ask(sound(b"RIFF\0\0\0\0WAVE" + b"no sound"))
        assert refused.status_code == 400, refused.text
        assert "the sound cannot be read" in refused.json()["error"]["message"]
        assert ears.ask(image(as_data(picture("red")))).status_code == 400
        assert ears.said(tone(440)) == (heard, tokens), "the engine goes on"
