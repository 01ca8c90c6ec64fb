"""What an operator does with one deployment, from its creation until nothing is left of it, on any runtime.

firectl and requests are one side; the other one is what somebody sees who knows nothing of Hearth's API.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.e2e.conftest import IDLE_SECONDS, QUICKSTART, Platform, wait_until
from tests.runtimes.test_engine import make_adapter

DEPLOYMENT, BASE, ADDON = "acceptance", "acceptance-base", "acceptance-addon"
MOST = 2
SHORT_CONTEXT = 512
CALLERS = 6
QUESTION = [{"role": "user", "content": "Where is my parcel?"}]
LONG_ANSWER = {"max_tokens": 200, "stream": True, "ignore_eos": True}


class Observer(Protocol):
    """Somebody with the runtime's own tools: kubectl, or a look at the node."""

    def replicas(self) -> set[str]:
        """What each replica that serves is called there."""

    def wanted(self) -> int:
        """How many replicas are to be there."""

    def is_at_zero(self) -> bool:
        """None is wanted, and nothing of one is left."""

    def context_lengths(self) -> set[int | None]:
        """What the engines that serve were started for."""

    def remains(self) -> list[str]:
        """Everything that there is of the deployment."""

    def check_as_created(self) -> None:
        """What is there for one replica is as people expect it."""


@dataclass(frozen=True)
class Acceptance:
    platform: Platform
    observer: Observer
    folder: Path

    def run(self) -> float:
        """All steps; returns the seconds from the request that woke the deployment to its first token."""
        self.create()
        self.scale_up_and_down_with_the_load()
        self.go_to_zero_when_nobody_asks()
        woken = self.wake()
        self.update_under_a_running_answer()
        self.serve_an_addon()
        self.delete()
        return woken

    def create(self) -> None:
        firectl = self.platform.firectl
        firectl("create", "model", BASE, str(QUICKSTART / "model"))
        bounds = ("--min-replica-count", "0", "--max-replica-count", str(MOST))
        windows = ("--scale-up-window", "1s", "--scale-down-window", "1s", "--scale-to-zero-window", "5m")
        wanted = (*bounds, *windows, "--load-targets", "concurrent_requests=2", "--enable-addons")
        firectl("create", "deployment", BASE, "--deployment-id", DEPLOYMENT, *wanted, "--wait")
        assert len(self.observer.replicas()) == 1
        self.observer.check_as_created()
        self.require_answer()

    def scale_up_and_down_with_the_load(self) -> None:
        with self.load():
            wait_until(lambda: len(self.observer.replicas()) == MOST)
            wait_until(lambda: self.ready_count() == MOST)
            assert self.observer.wanted() == MOST
        wait_until(lambda: len(self.observer.replicas()) == 1)

    def go_to_zero_when_nobody_asks(self) -> None:
        asked = time.monotonic()
        self.require_answer()
        self.set_window_to_zero(f"{IDLE_SECONDS}s")
        wait_until(self.observer.is_at_zero)
        assert time.monotonic() - asked >= IDLE_SECONDS
        log = (self.platform.data_dir / "logs" / "worker.log").read_text()
        assert f"deployments/{DEPLOYMENT}: from 1 replicas to 0: idle" in log
        # What follows has pauses of its own.
        self.set_window_to_zero("5m")

    def set_window_to_zero(self, window: str) -> None:
        self.platform.firectl("update", "deployment", DEPLOYMENT, "--scale-to-zero-window", window)

    def wake(self) -> float:
        began = time.monotonic()
        refused = self.ask(BASE, headers={"x-wait-for-replica": "0"})
        assert refused.json()["error"]["code"] == "DEPLOYMENT_SCALING_UP", refused.text
        first = next(self.words())
        woken = time.monotonic() - began
        assert first
        assert len(wait_until(self.observer.replicas)) == self.observer.wanted() == 1
        return woken

    def update_under_a_running_answer(self) -> None:
        before = self.observer.replicas()
        answer = self.words()
        assert next(answer)
        self.platform.firectl("update", "deployment", DEPLOYMENT, "--max-context-length", str(SHORT_CONTEXT))
        assert sum(1 for _ in answer) > 1
        wait_until(lambda: self.serving_anew(before))
        assert self.observer.context_lengths() == {SHORT_CONTEXT}
        self.require_answer()

    def serve_an_addon(self) -> None:
        make_adapter(self.folder / "adapter", scale=1.0, rank=4)
        base = f"accounts/{self.platform.account}/models/{BASE}"
        firectl = self.platform.firectl
        firectl("create", "model", ADDON, str(self.folder / "adapter"), "--base-model", base)
        before = self.observer.replicas()
        firectl("deploy", ADDON, "--deployment-id", DEPLOYMENT, "--wait")
        assert self.observer.replicas() == before  # it comes to engines that run
        said = [self.ask(model).json()["choices"][0]["message"]["content"] for model in (BASE, ADDON)]
        assert said[0] != said[1]

    def delete(self) -> None:
        refused = self.platform.firectl("delete", "deployment", DEPLOYMENT, check=False)
        assert refused.returncode != 0
        assert ADDON in refused.stderr
        self.platform.firectl("undeploy", ADDON, "--deployment-id", DEPLOYMENT, "--wait")
        self.platform.firectl("delete", "deployment", DEPLOYMENT, "--ignore-checks", "--wait")
        wait_until(lambda: not self.observer.remains())
        assert self.ask(BASE).status_code == 404

    def require_answer(self) -> None:
        answer = self.ask(BASE)
        assert answer.status_code == 200, answer.text

    def ask(self, model: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.platform.key}", **options.pop("headers", {})}
        body = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 8, **options}
        url = f"{self.platform.url}/inference/v1/chat/completions"
        return httpx.post(url, headers=headers, json=body, timeout=120)

    def words(self) -> Iterator[str]:
        """The pieces of a long answer, as they come."""
        headers = {"Authorization": f"Bearer {self.platform.key}"}
        body = {"model": BASE, "messages": QUESTION, **LONG_ANSWER}
        url = f"{self.platform.url}/inference/v1/chat/completions"
        with httpx.stream("POST", url, headers=headers, json=body, timeout=180) as answer:
            assert answer.status_code == 200, answer.read()
            events = (
                line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")
            )
            for event in events:
                if event == "[DONE]":
                    return
                for choice in json.loads(event)["choices"]:
                    if choice["delta"].get("content"):
                        yield choice["delta"]["content"]
        raise AssertionError("the answer has no end")

    @contextmanager
    def load(self) -> Iterator[None]:
        """Callers that ask again as soon as they are answered."""
        enough = threading.Event()

        def call() -> None:
            while not enough.is_set():
                assert sum(1 for _ in self.words()) > 1

        with ThreadPoolExecutor(CALLERS) as callers:
            asked: list[Future[None]] = [callers.submit(call) for _ in range(CALLERS)]
            try:
                yield
            finally:
                enough.set()
        for each in asked:
            each.result()

    def ready_count(self) -> int:
        stats = self.platform.get(f"deployments/{DEPLOYMENT}")["replicaStats"]
        return int(stats["readyReplicaCount"])

    def serving_anew(self, before: set[str]) -> bool:
        """Replicas serve, and none of them is an old one."""
        now = self.observer.replicas()
        return bool(now) and not now & before and self.ready_count() == len(now)
