"""Asks several models the same held-out questions through the gateway, and counts the exact answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SHOWN_ROWS = 3
CONCURRENT_REQUESTS = 8
MAX_TOKENS = 128


@dataclass(frozen=True)
class HeldOut:
    """A question and the one right answer."""

    messages: list[dict[str, Any]]
    expected: str


def load_held_out(path: Path) -> list[HeldOut]:
    rows = [json.loads(line)["messages"] for line in path.read_text().splitlines() if line]
    return [HeldOut(messages[:-1], messages[-1]["content"]) for messages in rows]


def compare(url: str, key: str, models: dict[str, str], rows: list[HeldOut]) -> dict[str, float]:
    """Label → the share of rows answered exactly as expected. Prints the first few side by side."""
    with (
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client,
        ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool,
    ):
        answers = {
            label: list(pool.map(lambda row, model=model: ask(client, model, row), rows))
            for label, model in models.items()
        }
    for number, row in enumerate(rows[:SHOWN_ROWS]):
        print_side_by_side(row, {label: given[number] for label, given in answers.items()})
    return {
        label: sum(answer == row.expected for answer, row in zip(given, rows, strict=True)) / len(rows)
        for label, given in answers.items()
    }


def ask(client: httpx.Client, model: str, row: HeldOut) -> str:
    """One greedy chat completion."""
    body = {"model": model, "messages": row.messages, "temperature": 0, "max_tokens": MAX_TOKENS}
    response = client.post("/inference/v1/chat/completions", json=body)
    response.raise_for_status()
    content = response.json()["choices"][0]["message"]["content"]
    return str(content or "").strip()


def print_side_by_side(row: HeldOut, answers: dict[str, str]) -> None:
    width = max(map(len, (*answers, "prompt", "wanted")))
    print(f"\n  {'prompt':<{width}}  {row.messages[-1]['content']}")
    print(f"  {'wanted':<{width}}  {row.expected}")
    for label, answer in answers.items():
        print(f"  {label:<{width}}  {answer}")
