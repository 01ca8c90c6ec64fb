"""A small client of the engine's HTTP interface, for reconcilers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

import httpx

from controlplane.checks.architectures import EMBED, GENERATE
from workers.runtimes.base import AdapterRefused, EngineUnreachable

HEALTH_SECONDS = 2.0
PROBE_SECONDS = 60.0
"""On GPUs the first request for log probabilities compiles a kernel."""
LOAD_SECONDS = 60.0
PROBE_TOKENS: tuple[int, ...] = tuple(range(3, 15))
"""Shorter than a block of the prefix cache, so that no run of the probe answers from the cache."""
PROBE_LOGPROBS = 5
NOISE_FACTOR = 4.0
SMALLEST_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Probe:
    """Log probabilities of a fixed prompt: for each position, token id → log probability."""

    positions: tuple[dict[str, float], ...]


class EngineClient:
    """Raises EngineUnreachable when the engine does not answer as an engine does."""

    def __init__(self, base_url: str) -> None:
        # The engine is on this network by design: a proxy of the surroundings has no business here.
        self._http = httpx.Client(base_url=base_url, timeout=HEALTH_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def health(self) -> bool:
        try:
            return self._http.get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    def models(self) -> frozenset[str]:
        """The names that the engine answers to, adapters included."""
        listed = self._checked(self._request("GET", "/v1/models"))
        return frozenset(str(model["id"]) for model in listed["data"])

    def adapter_folders(self) -> frozenset[str]:
        """The names of the folders that the engine has its adapters from."""
        listed = self._checked(self._request("GET", "/v1/models"))
        return frozenset(PurePath(model["root"]).name for model in listed["data"] if model.get("parent"))

    def load_adapter(self, name: str, path: str) -> None:
        """Load an adapter; one already loaded under the name stays as it is. Raises AdapterRefused."""
        if name in self.models():
            return
        body = {"lora_name": name, "lora_path": path}
        answer = self._request("POST", "/v1/load_lora_adapter", body, LOAD_SECONDS)
        if answer.status_code == 200 or name in self.models():  # Another worker may have been faster.
            return
        raise AdapterRefused(_error_message(answer))

    def unload_adapter(self, name: str) -> None:
        if name not in self.models():
            return
        answer = self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name}, LOAD_SECONDS)
        if answer.status_code != 200 and name in self.models():
            raise EngineUnreachable(f"the engine did not unload {name}: {_error_message(answer)}")

    def prove(self, model_name: str, task: str) -> None:
        """Have the base do its task once. The answer to a short request is not looked at."""
        if task == GENERATE:
            self.probe(model_name)
        elif task == EMBED:
            body = {"model": model_name, "input": list(PROBE_TOKENS)}
            self._checked(self._request("POST", "/v1/embeddings", body, PROBE_SECONDS))
        else:
            texts = {"model": model_name, "text_1": "a", "text_2": "b"}
            self._checked(self._request("POST", "/v1/score", texts, PROBE_SECONDS))

    def probe(self, model_name: str, prompt: Sequence[int] = PROBE_TOKENS) -> Probe:
        body = {
            "model": model_name,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": PROBE_LOGPROBS,
            "prompt_logprobs": PROBE_LOGPROBS,
            "return_tokens_as_token_ids": True,
        }
        choice = self._checked(self._request("POST", "/v1/completions", body, PROBE_SECONDS))["choices"][0]
        positions = [
            {token: float(entry["logprob"]) for token, entry in position.items()}
            for position in choice["prompt_logprobs"]
            if position
        ]
        positions.append(dict(choice["logprobs"]["top_logprobs"][0]))
        return Probe(tuple(positions))

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = HEALTH_SECONDS
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise EngineUnreachable(f"the engine does not answer: {error or type(error).__name__}") from error

    def _checked(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code != 200:
            raise EngineUnreachable(f"the engine answered {answer.status_code}: {_error_message(answer)}")
        body: dict[str, Any] = answer.json()
        return body


def adapter_differs(base: Probe, adapter: Probe, noise: float = 0.0) -> bool:
    """Whether the adapter's answers are its own: further from the base's than the base is from itself.

    `noise` is `largest_difference` of two probes of the base: batching on GPUs makes it more than zero.
    """
    return largest_difference(base, adapter) > max(SMALLEST_DIFFERENCE, NOISE_FACTOR * noise)


def largest_difference(one: Probe, other: Probe) -> float:
    """The largest change of a log probability that both list, over all positions."""
    differences = (
        abs(first[token] - second[token])
        for first, second in zip(one.positions, other.positions, strict=True)
        for token in first.keys() & second.keys()
    )
    return max(differences, default=float("inf"))


def prove_adapter(client: EngineClient, base_name: str, adapter_name: str) -> bool:
    """Whether requests for the adapter are answered by it, and not silently by the base."""
    base = client.probe(base_name)
    adapter = client.probe(adapter_name)
    noise = largest_difference(base, client.probe(base_name))
    return adapter_differs(base, adapter, noise)


def _error_message(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:400]
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:400]
