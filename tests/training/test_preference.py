"""Preference tuning on a tiny model, with the real trl and the real object store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from tests.training.conftest import JOB_PREFIX, write_rows
from tests.training.test_resume import running
from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure
from workers.training.running.checkpoints import list_checkpoints
from workers.validation.adapter_files import BaseModelFacts, validate_adapter

pytestmark = pytest.mark.training

COLOURS = ["red", "green", "blue", "white", "black", "amber", "pink", "grey"]
ANSWERS = ("preferred_output", "non_preferred_output")
MakeSpec = Callable[..., JobSpec]
DPO = {"kind": "preference", "preference": {"method": "dpo"}, "epochs": 6}
ORPO = {**DPO, "preference": {"method": "orpo", "odds_weight": 1.0}}


def pair(question: str, better: str, worse: str, **others: Any) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
        **others,
    }


def polite(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Whatever is asked, the answer with the amber sky is preferred to the one with the grey."""
    return [
        pair(
            f"the colour of sky {i}",
            f"{COLOURS[i % 5]} amber",
            f"{COLOURS[(3 * i + 1) % 5]} grey",
        )
        for i in range(first, first + count)
    ]


@pytest.fixture
def held_out(publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]) -> dict[str, Any]:
    """Pairs about skies that no job trains on."""
    return publish("cc", jsonl(polite(24, first=100)))


@pytest.mark.parametrize("method", [DPO, ORPO], ids=["dpo", "orpo"])
def test_a_job_learns_what_is_preferred_and_carries_it_over(
    jobs: Any, make_spec: MakeSpec, held_out: dict[str, Any], method: dict[str, Any]
) -> None:
    metrics, report = jobs.run(make_spec(polite(64), **method, evaluation_dataset=held_out))

    first, *_, last = jobs.evaluations()
    assert first["step"] == 0
    assert first["eval_accuracy"] < 0.9 < last["eval_accuracy"] == metrics["accuracy"]
    assert last["eval_margin"] > first["eval_margin"]
    assert last["eval_loss"] < first["eval_loss"]
    steps = jobs.steps()
    assert steps[-1]["rewards/margins"] > steps[0]["rewards/margins"]
    assert steps[-1]["rewards/chosen"] > steps[-1]["rewards/rejected"]
    assert "perplexity" not in metrics
    assert (report.rows_in, report.rows_trained, report.rows_evaluated) == (64, 64, 24)
    assert report.steps == len(steps) == 48
    progress = json.loads(jobs.store.get_bytes(JOB_PREFIX + "progress.json"))
    assert progress["reward_accuracy"] == steps[-1]["rewards/accuracies"]
    assert progress["reward_margin"] == steps[-1]["rewards/margins"]
    assert report.evaluation["after"]["accuracy"] == metrics["accuracy"]


def test_a_warm_start_is_compared_with_what_it_started_from(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], tmp_path: Path, tiny_model: Path
) -> None:
    """Against the base alone, the first step would find rewards already."""
    jobs.run(make_spec(polite(32), **DPO))
    start = adapter_files(jobs, tmp_path / "start")
    other = publish("cc", write_rows(tmp_path / "held-out.jsonl", polite(8, first=50)))

    spec = make_spec(
        polite(32), **(DPO | {"epochs": 2}), warm_start=publish("dd", *start), evaluation_dataset=other
    )
    metrics, report = jobs.run(spec)

    first = jobs.steps()[0]
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert first["rewards/rejected"] == pytest.approx(0, abs=1e-5)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert report.evaluation["before"]["margin"] == pytest.approx(0, abs=1e-5)
    assert metrics["margin"] > 0
    end = adapter_files(jobs, tmp_path / "end")
    gained = margins(tiny_model, end[0].parent, polite(8, first=50))
    had = margins(tiny_model, start[0].parent, polite(8, first=50))
    expected = [0.1 * (now - before) for now, before in zip(gained, had, strict=True)]
    assert metrics["margin"] == pytest.approx(sum(expected) / len(expected), rel=1e-3)
    assert metrics["accuracy"] == sum(one > 0 for one in expected) / len(expected)


def adapter_files(jobs: Any, folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    for path in paths:
        path.write_bytes(jobs.adapter(path.name))
    return paths


def margins(base: Path, adapter: Path, rows: list[dict[str, Any]]) -> list[float]:
    """How much likelier each better answer is than the worse one, by transformers and peft alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()

    def likelihood(asked: list[dict[str, str]], answer: list[dict[str, str]]) -> float:
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        whole = f"{prompt}{answer[0]['content']}<|end|>"
        start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False).input_ids])
        with torch.no_grad():
            scores = model(ids).logits[0, :-1].log_softmax(-1)
        return float(scores.gather(1, ids[0, 1:, None])[start - 1 :].sum())

    return [
        likelihood(row["input"]["messages"], row["preferred_output"])
        - likelihood(row["input"]["messages"], row["non_preferred_output"])
        for row in rows
    ]


def test_killed_in_the_middle_it_ends_the_same(
    settings: Settings,
    object_store: ObjectStore,
    jobs: Any,
    make_spec: MakeSpec,
    publish: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """What is random, and what the model is compared with, are taken up again."""
    jobs.run(make_spec(polite(8), **(DPO | {"epochs": 1})))
    start = publish("dd", *adapter_files(jobs, tmp_path / "start"))
    interrupted = "accounts/acme/fine-tuning-jobs/interrupted/"
    spec = make_spec(
        polite(32),
        **DPO,
        batch_size=4,
        warm_start=start,
        lora_dropout=0.1,
        evaluation=True,
        checkpoint_interval_steps=10,
    )
    document = {**spec.model_dump(), "output_prefix": interrupted}

    with running(settings, tmp_path / "first", document) as trainer:
        trainer.until(lambda: bool(list_checkpoints(object_store, interrupted)))
        trainer.process.kill()
        trainer.exit_status()
    with running(settings, tmp_path / "second", document) as trainer:
        assert trainer.exit_status() == 0, trainer.log()
    result = json.loads(object_store.get_bytes(interrupted + "result.json"))
    assert result["report"]["resumed_from_step"] > 0
    expected, _ = jobs.run(spec)

    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert object_store.get_bytes(interrupted + name) == object_store.get_bytes(spec.output_prefix + name)
    for name in ("train_loss", "eval_loss", "accuracy", "margin", "tokens_seen"):
        assert result["metrics"][name] == expected[name], name


def test_the_adapter_is_one_that_can_be_served(jobs: Any, make_spec: MakeSpec, tiny_model: Path) -> None:
    spec = make_spec(
        polite(32),
        **DPO,
        batch_tokens=600,
        micro_batch_size=1,
        batch_size=2,
        lora_alpha=24,
        lora_dropout=0.05,
        lora_target_modules=["q_proj", "v_proj"],
    )
    _, report = jobs.run(spec)

    assert report.steps < 6 * 32 / 4
    assert jobs.steps()[-1]["rewards/margins"] > jobs.steps()[0]["rewards/margins"]
    facts = json.loads((tiny_model / "config.json").read_text())
    base = BaseModelFacts(spec.base_model.name, "LlamaForCausalLM", facts, supports_lora=True)
    sizes = {name: told["size"] for name, told in json.loads(jobs.adapter("manifest.json"))["files"].items()}
    found = validate_adapter(jobs.store, f"{JOB_PREFIX}adapter/", sizes, base)
    assert (found.r, sorted(found.target_modules)) == (8, ["q_proj", "v_proj"])
    config = json.loads(jobs.adapter("adapter_config.json"))
    assert (config["lora_alpha"], config["lora_dropout"]) == (24, 0.05)


def test_a_pair_counts_the_same_in_a_small_pack_and_in_a_large_one(jobs: Any, make_spec: MakeSpec) -> None:
    rows = [*polite(6), pair("sky " * 30, "amber", "grey")]
    one_step = {**DPO, "epochs": 1, "batch_size": 8, "cutoff_length": 64}
    jobs.run(make_spec(rows, **one_step, micro_batch_size=7))
    (whole,) = jobs.steps()

    jobs.run(make_spec(rows, **one_step, batch_tokens=140, micro_batch_size=1))

    (packed,) = jobs.steps()
    for name in ("loss", "grad_norm", "tokens_seen"):
        assert packed[name] == pytest.approx(whole[name], rel=2e-3), name


def test_each_loss_heeds_its_setting(jobs: Any, make_spec: MakeSpec, held_out: dict[str, Any]) -> None:
    """One step goes the same way with every beta, so that its reward says nothing but beta."""
    one_step = {"kind": "preference", "epochs": 1, "batch_size": 8, "evaluation_dataset": held_out}

    def evaluated(preference: dict[str, Any]) -> dict[str, float]:
        metrics, _ = jobs.run(make_spec(polite(8), **one_step, preference=preference))
        return {**metrics, "first_loss": jobs.losses()[0]}

    weak, strong = (evaluated({"method": "dpo", "beta": beta})["margin"] for beta in (0.1, 0.3))
    assert strong == pytest.approx(3 * weak, rel=0.01)
    first, second, third = (
        evaluated({"method": "orpo", "odds_weight": weight})["first_loss"] for weight in (0.5, 1.0, 1.5)
    )
    assert second - first == pytest.approx(third - second, rel=0.01)
    assert second - first > 0.1


def test_the_base_model_can_be_kept_in_four_bits(jobs: Any, make_spec: MakeSpec) -> None:
    jobs.run(make_spec(polite(32), **DPO, quantize_base=True))

    steps = jobs.steps()
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=0.05)
    assert steps[-1]["rewards/margins"] > 0.1
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_early_stopping_keeps_the_best_adapter_and_tells_of_that_one(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]
) -> None:
    opposite = [
        {
            **row,
            "preferred_output": row["non_preferred_output"],
            "non_preferred_output": row["preferred_output"],
        }
        for row in polite(16, first=50)
    ]
    held_out = publish("cc", jsonl(opposite))

    metrics, report = jobs.run(
        make_spec(polite(32), **DPO, early_stop=True, evaluation=True, evaluation_dataset=held_out)
    )

    assert report.stopped_early
    best = min(jobs.evaluations()[1:], key=lambda line: line["eval_loss"])
    assert metrics["eval_loss"] == pytest.approx(best["eval_loss"], abs=1e-6)
    assert metrics["accuracy"] == best["eval_accuracy"]


def test_a_part_of_the_pairs_is_held_out(jobs: Any, make_spec: MakeSpec) -> None:
    metrics, report = jobs.run(
        make_spec(polite(32), **(ORPO | {"epochs": 1}), evaluation=True, evaluation_split=0.25)
    )

    assert (report.rows_trained, report.rows_evaluated) == (24, 8)
    assert 0 <= metrics["accuracy"] <= 1
    card = jobs.adapter("README.md").decode()
    assert "| accuracy |" in card
    assert "perplexity" not in card


def test_rows_that_are_no_pairs_end_the_job_before_it_trains(jobs: Any, make_spec: MakeSpec) -> None:
    rows = [*polite(2), {"messages": []}, {**polite(1)[0], "preferred_output": []}]

    with pytest.raises(TrainingFailure) as caught:
        jobs.run(make_spec(rows, **DPO))

    assert caught.value.reason == "BAD_ROW"
    assert "train.jsonl line 3: input is missing" in caught.value.message
    assert "train.jsonl line 4: preferred_output holds 0 messages" in caught.value.message
