"""What each way of training makes, served by the real engine: it answers as the trained model does."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.conftest import JOB_PREFIX
from workers.runtimes.base import AdapterSource, ModelFile, ModelSource, ProcessState, ReplicaSpec
from workers.runtimes.local import LocalRuntime
from workers.training.config import JobSpec

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(600)]

QUICKSTART = Path(__file__).resolve().parents[2] / "quickstart"
ROWS = [json.loads(line) for line in (QUICKSTART / "data" / "train.jsonl").read_text().splitlines()]
START_SECONDS = 300
TOLERANCE = 0.08
"""Of a token's log-probability: the engine computes in 16 bits, of which 8 are the fraction's."""
TRAINED = {"batch_size": 8, "epochs": 2, "learning_rate": 5e-3, "cutoff_length": 512}


def pair(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "input": {"messages": row["messages"][:-1]},
        "preferred_output": [row["messages"][-1]],
        "non_preferred_output": [{"role": "assistant", "content": "I do not know."}],
    }


@pytest.fixture
def trained(
    jobs: Any, make_spec: Callable[..., JobSpec], publish: Callable[..., dict[str, Any]], tmp_path: Path
) -> dict[str, Path]:
    """The adapters, by how they were trained."""
    base = publish(uuid.uuid4().hex, *sorted((QUICKSTART / "model").iterdir()))
    folders: dict[str, Path] = {}

    def train(name: str, rows: list[dict[str, Any]], **settings: Any) -> None:
        jobs.run(make_spec(rows, base_model=base, **TRAINED | settings))
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folders[name] / file).write_bytes(jobs.adapter(file))
        jobs.store.delete_prefix(JOB_PREFIX)

    train("lora", ROWS[:64])
    train("qlora", ROWS[:64], quantize_base=True)
    train("warm-start", ROWS[64:96], warm_start=publish(uuid.uuid4().hex, *sorted(folders["lora"].iterdir())))
    train("dpo", [pair(row) for row in ROWS[:32]], kind="preference", preference={"method": "dpo"})
    return folders


@pytest.fixture
def engine(
    settings: Settings, publish: Callable[..., dict[str, Any]]
) -> Iterator[tuple[LocalRuntime, ReplicaSpec]]:
    """The base model on a vLLM that takes adapters."""
    runtime = LocalRuntime(settings)
    model = source(publish(uuid.uuid4().hex, *sorted((QUICKSTART / "model").iterdir())))
    endpoint = runtime.choose_endpoint()
    spec = ReplicaSpec(uuid.uuid4().hex, "base", model, endpoint.host, endpoint.port, enable_adapters=True)
    runtime.start_replica(spec)
    yield runtime, spec
    runtime.stop_replica(spec.replica_uid)
    until(lambda: runtime.observe_replica(spec.replica_uid).state is not ProcessState.RUNNING)


def source(published: dict[str, Any]) -> ModelSource:
    files = tuple(ModelFile(file["name"], file["size"], file["sha256"]) for file in published["files"])
    return ModelSource(published["uid"], published["prefix"], files)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.1)


def test_the_engine_answers_as_the_model_that_was_trained(
    engine: tuple[LocalRuntime, ReplicaSpec],
    trained: dict[str, Path],
    publish: Callable[..., dict[str, Any]],
    object_store: ObjectStore,
) -> None:
    runtime, spec = engine
    texts = held_out_texts(3)
    until(lambda: runtime.observe_replica(spec.replica_uid).healthy)
    base = served(spec, "base", texts)
    assert apart(base, computed(None, texts)) < TOLERANCE

    far_from_base = {}
    for name, folder in trained.items():
        files = publish(uuid.uuid4().hex, *sorted(folder.iterdir()))
        runtime.load_adapter(spec.replica_uid, AdapterSource(name, source(files)))
        found = served(spec, name, texts)
        assert apart(found, computed(folder, texts)) < TOLERANCE, name
        far_from_base[name] = apart(found, base)
    assert all(distance > 10 * TOLERANCE for distance in far_from_base.values()), far_from_base


def held_out_texts(count: int) -> list[list[int]]:
    """Whole conversations, as tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "model")
    lines = (QUICKSTART / "data" / "heldout.jsonl").read_text().splitlines()[:count]
    return [
        list(tokenizer.apply_chat_template(json.loads(line)["messages"], return_dict=False)) for line in lines
    ]


def computed(adapter: Path | None, texts: list[list[int]]) -> list[float]:
    """The log-probability of every token but the first, by transformers and peft in 32 bits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(QUICKSTART / "model", dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    found = []
    for text in texts:
        ids = torch.tensor([text])
        with torch.no_grad():
            scores = model(ids).logits[0, :-1].log_softmax(-1)
        found += scores.gather(1, ids[0, 1:, None]).flatten().tolist()
    return found


def served(spec: ReplicaSpec, name: str, texts: list[list[int]]) -> list[float]:
    """The same, by the engine."""
    found = []
    for text in texts:
        body = {"model": name, "prompt": text, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 0}
        answer = httpx.post(f"http://{spec.host}:{spec.port}/v1/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        told = answer.json()["choices"][0]["prompt_logprobs"]
        found += [
            told[place][str(token)]["logprob"] for place, token in enumerate(text) if told[place] is not None
        ]
    return found


def apart(ours: list[float], theirs: list[float]) -> float:
    """How far they are apart on the mean token."""
    return sum(abs(one - other) for one, other in zip(ours, theirs, strict=True)) / len(ours)
