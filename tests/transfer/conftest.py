"""firectl as a program, against the real app and a real object store that is reached over a bad network."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from controlplane.config import Settings
from controlplane.resources import resumable
from controlplane.storage import ObjectStore
from tests.controlplane.conftest import admin_key, app_for, db, uploads_worker
from tests.transfer.proxy import BadNetwork

__all__ = ["admin_key", "db", "uploads_worker"]

ROOT = Path(__file__).resolve().parents[2]
FIRECTL = Path(sys.executable).parent / "firectl"
MIB = 1024 * 1024
PART = 5 * MIB
WAIT_SECONDS = 60.0


class Api:
    """The app on a port of its own; it can be stopped and started again there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        config = uvicorn.Config(app_for(self._settings), log_level="warning", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_SECONDS)
        self._listener.close()


@dataclass
class Running:
    """A firectl that is under way."""

    process: subprocess.Popen[str]
    peak_bytes: int = 0

    def finish(self, seconds: float = 120) -> Ran:
        out, err = self.process.communicate(timeout=seconds)
        return Ran(self.process.returncode, out, err, self.peak_bytes)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def watch_memory(self) -> None:
        """Looks at the high-water mark; what wait4 tells begins with the memory of these tests."""
        with contextlib.suppress(OSError):
            while self.process.poll() is None:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
                peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
                self.peak_bytes = max(self.peak_bytes, *(int(kib) * 1024 for kib in peak), 0)
                time.sleep(0.05)


@dataclass
class Ran:
    code: int
    out: str
    err: str
    peak_bytes: int


@pytest.fixture
def network(settings: Settings) -> Iterator[BadNetwork]:
    """What lies between firectl and the object store."""
    with BadNetwork(int(urlsplit(settings.s3_endpoint).port or 0)) as proxy:
        settings.s3_public_endpoint = proxy.url
        yield proxy


@pytest.fixture
def server(
    settings: Settings, network: BadNetwork, object_store: ObjectStore, uploads_worker: None
) -> Iterator[Api]:
    api = Api(settings)
    api.start()
    yield api
    api.stop()


@pytest.fixture
def start(server: Api, admin_key: str, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts firectl as a user of the account `hearth`."""
    started: list[Running] = []
    (tmp_path / "home").mkdir()

    def run(*argv: str) -> Running:
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FIREWORKS_")},
            "HOME": str(tmp_path / "home"),
            "FIREWORKS_BASE_URL": server.url,
            "FIREWORKS_API_KEY": admin_key,
            "FIREWORKS_ACCOUNT_ID": "hearth",
        }
        process = subprocess.Popen(
            [str(FIRECTL), *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running = Running(process)
        threading.Thread(target=running.watch_memory, daemon=True).start()
        started.append(running)
        return running

    yield run
    for running in started:
        if running.process.poll() is None:
            running.kill()


@pytest.fixture
def firectl(start: Callable[..., Running]) -> Callable[..., Ran]:
    """Runs firectl to its end."""
    return lambda *argv: start(*argv).finish()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts as small as the store takes them."""
    monkeypatch.setattr(resumable, "USUAL_PART_BYTES", PART)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model of 26 MB, which is six parts."""
    return make_model(tmp_path / "model", 26 * MIB, seed=7)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """One of 40 MB, so that parts have arrived while four are under way."""
    return make_model(tmp_path / "large", 40 * MIB, seed=9)


def make_model(folder: Path, size: int, seed: int) -> Path:
    """A model of one layer whose embeddings, of random numbers, are about `size` bytes."""
    folder.mkdir()
    template = ROOT / "quickstart" / "model"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(template / name, folder / name)
    config = json.loads((template / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "vocab_size": size // (config["hidden_size"] * 2)}
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", shapes_of(config), seed)
    return folder


def shapes_of(config: dict[str, Any]) -> dict[str, list[int]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "mlp.down_proj": [hidden, inner],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.o_proj": [hidden, hidden],
    }
    return {
        "model.embed_tokens.weight": [config["vocab_size"], hidden],
        **{f"model.layers.0.{name}.weight": shape for name, shape in layer.items()},
        "model.norm.weight": [hidden],
    }


def write_weights(path: Path, shapes: dict[str, list[int]], seed: int) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    written = json.dumps(header).encode()
    noise = random.Random(seed).randbytes(MIB)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(written)) + written)
        for block in range(-(-end // MIB)):
            # No two mebibytes are the same, and 2 GB of them are made in seconds.
            stream.write((block.to_bytes(8, "big") + noise[8:])[: end - block * MIB])


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.01)
