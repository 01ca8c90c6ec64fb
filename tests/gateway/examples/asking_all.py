"""Asks a gateway all rows of a client, in an interpreter that has the client's version of its package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.gateway.examples.table import Example, is_right

ROOT = Path(__file__).parents[3]
OLDER_CLIENTS = Path(sys.prefix) / "older-clients"
"""Where `make install` puts them: a folder holds one version of a package."""


def wrong_answers(
    url: str, key: str, client: str, examples: Iterable[Example], **values: str
) -> list[tuple[Example, Any]]:
    """Those of the client's examples, with what was told, that were not answered as they should have been.
    `values` are what stands for their `<NAME>`s."""
    rows = [example.filled(values) for example in examples if example.client == client]
    sent = [line for row in rows for line in [row.to_send()] * row.times]
    told = iter(_told(client, f"{url}/inference/v1", key, sent))
    answers = [[next(told) for _ in range(row.times)][-1] for row in rows]
    return [(row, answer) for row, answer in zip(rows, answers, strict=True) if not is_right(row, answer)]


def _told(client: str, url: str, key: str, sent: Iterable[Any]) -> list[Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.gateway.examples.asking", client, url, key]
    lines = "".join(json.dumps(line) + "\n" for line in sent)
    environment = {**os.environ, **_environment(client, url, key)}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, input=lines, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, f"after {ran.stdout[-1000:]}\n{ran.stderr[-6000:]}"
    return [json.loads(line) for line in ran.stdout.splitlines()]


def _environment(client: str, url: str, key: str) -> dict[str, str]:
    """What the documents have people set, and the folder where Python looks first."""
    return {
        "OPENAI_API_BASE": url,
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": key,
        "FIREWORKS_API_BASE": url,
        "FIREWORKS_API_KEY": key,
        "PYTHONPATH": str(OLDER_CLIENTS) if client.startswith("older") else "",
    }
