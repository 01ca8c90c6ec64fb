"""The gateway before a real engine: the same answers, caches kept apart, hundreds of addons, our sampling."""

from __future__ import annotations

import json
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.resources.tables import DeployedModelRow, ModelRow, ReplicaAdapterRow, ReplicaRow
from tests.gateway.addon_files import save_addon
from tests.gateway.serving import wait_until
from workers.runtimes.client import EngineClient

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]
LONG = "The weather in Oslo is 7 degrees and rainy. " * 30
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass
class Behind:
    """The engine, and the gateway before it: `acme` has it to itself, and `fireworks` serves it to all."""

    engine: httpx.Client
    clients: dict[str, httpx.Client]
    own: str = "accounts/acme/models/llama"
    shared: str = "accounts/fireworks/models/llama"

    def ask(self, path: str = "completions", account: str = "acme", **sent: Any) -> httpx.Response:
        fields = {"model": self.own, **usual(sent)}
        answer = self.clients[account].post(f"/inference/v1/{path}", json=fields)
        assert answer.status_code == 200, answer.text
        return answer

    def ask_engine(self, path: str, **sent: Any) -> httpx.Response:
        fields = {"model": "base-uid", **usual(sent)}
        answer = self.engine.post(f"/v1/{path}", json=fields)
        assert answer.status_code == 200, answer.text
        return answer


def usual(sent: dict[str, Any]) -> dict[str, Any]:
    length = {} if "max_completion_tokens" in sent else {"max_tokens": 24}
    return {**length, "temperature": 0, **sent}


@pytest.fixture
def behind(world: Any, real_engine: Any, start_gateway: Any) -> Iterator[Behind]:
    for account in ("acme", "fireworks"):
        public = account == "fireworks"
        base = world.add_base(
            account, "llama", tool_template=real_engine.tool_template, context_length=1024, public=public
        )
        deployment = world.add_deployment(account, "main", base)
        world.add_replica(deployment, real_engine.url, "base-uid")
        world.load(account, "llama-1", base, deployment)
    running = start_gateway()
    clients = {account: running.http(key) for account, key in world.keys.items()}
    for client in clients.values():
        client.timeout = 120
    with httpx.Client(base_url=real_engine.url, timeout=120) as engine:
        yield Behind(engine, clients)


CHAT = [
    {},
    {"max_tokens": 3},
    {"max_completion_tokens": 3},
    {"stop": [" in", "degrees"]},
    {"seed": 7, "user": "ann", "top_p": 0.3},
    {"frequency_penalty": 1.5, "presence_penalty": -1},
    {"logit_bias": {"269": -100}},
    {"logprobs": True, "top_logprobs": 3},
    {"tools": [WEATHER]},
    {"tools": [WEATHER], "tool_choice": "none"},
    {"messages": [{"role": "system", "content": "Be brief."}, *QUESTION]},
    {
        "messages": [
            *QUESTION,
            {"role": "assistant", "content": "Rain."},
            {"role": "user", "content": [{"type": "text", "text": "And in Rome?"}]},
        ]
    },
]
COMPLETIONS = [
    {},
    {"prompt": ["What is", "The weather"]},
    {"prompt": [[296, 289], [330]]},
    {"echo": True, "max_tokens": 0, "logprobs": 2},
    {"echo": True, "max_tokens": 4, "logprobs": 0},
    {"stop": "a", "presence_penalty": 2},
    {"logprobs": 5, "seed": 1},
    {"logit_bias": {"228": 5}, "frequency_penalty": -2},
]
CASES = [
    ("chat/completions", {"messages": QUESTION}, CHAT),
    ("completions", {"prompt": "What is the weather"}, COMPLETIONS),
]


def told(answer: dict[str, Any]) -> list[Any]:
    """What callers read of each choice."""
    found = []
    for choice in answer["choices"]:
        message = choice.get("message") or {"content": choice.get("text")}
        calls = [call["function"] for call in message.get("tool_calls") or []]
        finish = choice["finish_reason"]
        found.append((message.get("content") or "", calls, finish, choice.get("logprobs")))
    return found


def put_together(answer: httpx.Response) -> dict[int, str]:
    """The text of each streamed choice, with the names and arguments of its calls."""
    texts: dict[int, str] = {}
    for line in answer.text.splitlines():
        if line in ("", "data: [DONE]"):
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            delta = choice.get("delta") or {"content": choice.get("text")}
            pieces = [call["function"] for call in delta.get("tool_calls") or []]
            called = "".join((piece.get("name") or "") + (piece.get("arguments") or "") for piece in pieces)
            texts[choice["index"]] = texts.get(choice["index"], "") + (delta.get("content") or "") + called
    return texts


@pytest.mark.parametrize(("path", "usually", "cases"), CASES)
def test_the_gateways_answers_are_the_engines_own(
    behind: Behind, path: str, usually: dict[str, Any], cases: list[dict[str, Any]]
) -> None:
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    for case in cases:
        sent = {**usually, **case}
        ours, its = behind.ask(path, **sent).json(), behind.ask_engine(path, **sent).json()
        assert told(ours) == told(its), case
        assert [ours["usage"][name] for name in counts] == [its["usage"][name] for name in counts], case
        if sent.get("max_tokens") != 0:
            streamed = [ask(path, stream=True, **sent) for ask in (behind.ask, behind.ask_engine)]
            assert put_together(streamed[0]) == put_together(streamed[1]), case


def cached(behind: Behind, **sent: Any) -> int:
    answer = behind.ask(**sent)
    count = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert answer.headers["fireworks-cached-prompt-tokens"] == str(count)
    assert int(answer.headers["fireworks-prompt-tokens"]) > count
    return int(count)


def test_a_prompts_beginning_is_read_once(behind: Behind) -> None:
    unique = f"{uuid.uuid4()} {LONG}"
    assert cached(behind, prompt=unique) == 0
    assert cached(behind, prompt=unique + "And then?") >= 256
    *_, last = (
        json.loads(line[6:])
        for line in behind.ask(prompt=unique, stream=True).text.splitlines()
        if line.startswith("data: {")
    )
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] >= 256


def test_one_account_never_finds_what_another_has_asked(behind: Behind) -> None:
    sent = {"prompt": f"{uuid.uuid4()} {LONG}", "model": behind.shared}
    assert cached(behind, account="acme", **sent) == 0
    assert cached(behind, account="rival", **sent) == 0
    assert cached(behind, account="fireworks", **sent) == 0
    assert min(cached(behind, account=account, **sent) for account in ("acme", "rival")) >= 256


def test_an_isolation_key_keeps_prompts_apart_and_a_length_of_0_keeps_them_out(behind: Behind) -> None:
    sent = {"prompt": f"{uuid.uuid4()} {LONG}"}
    assert cached(behind, prompt_cache_max_len=0, **sent) == 0
    assert cached(behind, prompt_cache_max_len=0, **sent) == 0
    assert cached(behind, prompt_cache_isolation_key="one", **sent) == 0
    assert cached(behind, prompt_cache_isolation_key="other", **sent) == 0
    assert cached(behind, **sent) == 0
    assert cached(behind, prompt_cache_isolation_key="one", **sent) >= 256


def bits(answer: httpx.Response) -> float:
    """The average surprise of an answer's tokens."""
    logprobs = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    return sum(logprobs) / len(logprobs) / -math.log(2)


def test_mirostat_holds_the_surprise_and_typical_sampling_changes_it(behind: Behind) -> None:
    asked = {"prompt": "The ", "temperature": 1, "seed": 3, "logprobs": 0, "max_tokens": 200}
    asked |= {"ignore_eos": True}
    for target in (0.5, 1.5):
        held = behind.ask(mirostat_target=target, **asked)
        assert bits(held) == pytest.approx(target, abs=0.25)
        again = behind.ask(mirostat_target=target, **asked).json()["choices"][0]["text"]
        assert again == held.json()["choices"][0]["text"], "a seed is a seed"
    plain, typical = behind.ask(**asked), behind.ask(typical_p=0.2, **asked)
    assert abs(bits(typical) - bits(plain)) > 0.2
    several = behind.ask(n=2, typical_p=0.5, mirostat_target=2, **asked).json()["choices"]
    assert several[0]["text"] != several[1]["text"]
    greedy = {**asked, "temperature": 0}
    assert told(behind.ask(typical_p=0.2, mirostat_target=9, **greedy).json()) == told(
        behind.ask(**greedy).json()
    )


def test_several_greedy_choices_are_the_one(behind: Behind) -> None:
    alone = behind.ask("chat/completions", messages=QUESTION).json()
    several = behind.ask("chat/completions", messages=QUESTION, n=3).json()
    assert told(several) == told(alone) * 3


def test_the_prompt_and_the_raw_output_are_what_the_model_has_read_and_written(behind: Behind) -> None:
    asked = {"messages": QUESTION, "path": "chat/completions"}
    plain = behind.ask(**asked).json()["choices"][0]["message"]["content"]
    rendered = "<|bos|><|user|>What is the weather in Oslo?<|end|><|assistant|>"
    for stream in (False, True):
        answer = behind.ask(echo=True, stream=stream, **asked)
        content = put_together(answer)[0] if stream else answer.json()["choices"][0]["message"]["content"]
        assert content == rendered + plain
    choice = behind.ask(raw_output=True, perf_metrics_in_response=True, **asked).json()
    raw = choice["choices"][0]["raw_output"]
    assert (raw["prompt_fragments"], raw["completion"]) == ([rendered], plain)
    usage = choice["usage"]
    assert len(raw["prompt_token_ids"]) == usage["prompt_tokens"]
    assert len(raw["completion_token_ids"]) == usage["completion_tokens"]
    metrics = choice["perf_metrics"]
    assert 0 < metrics["server-time-to-first-token"] < metrics["server-processing-time"]


def running(behind: Behind) -> float:
    lines = behind.engine.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{"))


def test_a_caller_that_leaves_ends_the_engines_work(behind: Behind) -> None:
    sent = {"model": behind.own, "prompt": "What", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with behind.clients["acme"].stream("POST", "/v1/completions", json=sent) as answer:
        next(answer.iter_lines())
        wait_until(lambda: running(behind) == 1)
    wait_until(lambda: running(behind) == 0, 5)


AMBIGUOUS = "root ::= letter root root | letter root root | letter\nletter ::= [a-z ]"
END_OF_ANSWER = "1"


def test_an_answer_whose_grammar_takes_the_engine_too_long_is_cut(behind: Behind) -> None:
    asked = {"prompt": "The ", "max_tokens": 900, "logit_bias": {END_OF_ANSWER: -100}}
    asked |= {"response_format": {"type": "grammar", "grammar": AMBIGUOUS}}
    answer = behind.ask(stream=True, **asked)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert [choice["finish_reason"] for event in events for choice in event["choices"]][-1] == "length"
    assert events[-1]["usage"]["completion_tokens"] < 900
    assert set(put_together(answer)[0]) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert told(behind.ask(prompt="The ", max_tokens=1).json()), "the engine goes on"


ADDONS = 200


@pytest.fixture
def addons(world: Any, behind: Behind, real_engine: Any, tmp_path: Path) -> list[str]:
    """Two hundred addons on `acme`'s deployment, loaded as workers do it."""
    names = [uuid.uuid4().hex for _ in range(ADDONS)]
    with EngineClient(real_engine.url) as engine:
        for seed, name in enumerate(names):
            save_addon(tmp_path / name, seed)
            engine.load_adapter(name, str(tmp_path / name))
        add_rows(world, names)
    return names


def add_rows(world: Any, names: list[str]) -> None:
    with world.db.session() as session:
        base = session.query(DeployedModelRow).filter_by(account_id="acme").one()
        replica = session.query(ReplicaRow).filter_by(deployment_uid=base.deployment_uid).one()
        common = {"account_id": "acme", "state": "READY", "kind": "HF_PEFT_ADDON"}
        models = [ModelRow(id=f"m{i}", base_model_uid=base.model_uid, **common) for i in range(len(names))]
        session.add_all(models)
        session.flush()
        loaded = [
            DeployedModelRow(
                account_id="acme",
                id=f"m{i}-1",
                model_uid=model.uid,
                deployment_uid=base.deployment_uid,
                default=True,
                state="DEPLOYED",
            )
            for i, model in enumerate(models)
        ]
        session.add_all(loaded)
        session.flush()
        for row, name in zip(loaded, names, strict=True):
            session.add(
                ReplicaAdapterRow(
                    replica_uid=replica.uid,
                    deployed_model_uid=row.uid,
                    engine_name=name,
                    proven_at=datetime.now(UTC),
                )
            )


def test_two_hundred_addons_are_served_by_one_engine_that_holds_thirty_two(
    behind: Behind, addons: list[str]
) -> None:
    """Each is read again when it is asked for, and none is taken from a request that uses it."""

    def first_token(number: int) -> Any:
        logprobs = behind.ask(model=f"acme/m{number}", prompt="The", max_tokens=1, logprobs=0).json()
        return logprobs["choices"][0]["logprobs"]["token_logprobs"][0]

    def long_answer() -> str:
        answer = behind.ask(model="acme/m7", prompt="The", max_tokens=200, ignore_eos=True)
        return str(answer.json()["choices"][0]["text"])

    wait_until(lambda: reachable(behind, f"acme/m{ADDONS - 1}"))
    alone = long_answer()
    with in_background(long_answer) as meanwhile, ThreadPoolExecutor(4) as callers:
        once = list(callers.map(first_token, range(ADDONS)))
        again = list(callers.map(first_token, range(40)))
    assert meanwhile == [alone]
    assert again == once[:40]
    assert len(set(once)) > ADDONS * 0.95, "each answers by itself"
    base = behind.ask(prompt="The", max_tokens=1, logprobs=0).json()
    assert base["choices"][0]["logprobs"]["token_logprobs"][0] not in once


def reachable(behind: Behind, model: str) -> bool:
    sent = {"model": model, "prompt": "The", "max_tokens": 1}
    return behind.clients["acme"].post("/v1/completions", json=sent).status_code == 200


@contextmanager
def in_background(work: Callable[[], str]) -> Iterator[list[str]]:
    """What `work` returns, once the block has ended."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    yield found
    thread.join()
