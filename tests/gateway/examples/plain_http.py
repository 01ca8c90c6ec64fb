"""No package but one that sends what it is given: what shells and other languages send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests

from tests.gateway.examples.told import Told, told

REFUSED = requests.HTTPError


class Client:
    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def chat(self, **asked: Any) -> Told:
        return self._post("chat/completions", asked)

    def completion(self, **asked: Any) -> Told:
        return self._post("completions", asked)

    def _post(self, path: str, asked: dict[str, Any]) -> Told:
        headers = {**self.headers, **asked.pop("headers", {})}
        with requests.post(f"{self.url}/{path}", json=asked, headers=headers, stream=True) as answer:
            if answer.status_code == 400:
                raise REFUSED(answer.text)
            assert answer.status_code == 200, answer.text
            made = told(_events(answer) if asked.get("stream") else answer.json())
        cached = answer.headers.get("fireworks-cached-prompt-tokens")
        assert cached is None or int(cached) == made["usage"]["prompt_tokens_details"]["cached_tokens"]
        return made


def _events(answer: requests.Response) -> Iterator[dict[str, Any]]:
    lines = [line.decode() for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    yield from (json.loads(line.removeprefix("data: ")) for line in lines[:-1])
