"""What jobs show and leave behind: evaluations, a plot, a card, and adapters from the way there."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from controlplane.content_hash import content_sha256
from workers.training.config import JobSpec
from workers.training.outcome.exact_match import OTHER
from workers.training.outcome.plot import draw_plot
from workers.training.running.progress import ProgressReport
from workers.validation.adapter_files import BaseModelFacts, validate_adapter

pytestmark = pytest.mark.training

JOB_PREFIX = "accounts/acme/fine-tuning-jobs/77/"
COLOURS = ["red", "green", "blue", "white"]
CLASSIFICATION = {"kind": "text_classification", "input_template": "sky", "output_template": "colour"}
MakeSpec = Callable[..., JobSpec]


def skies(count: int = 40) -> list[dict[str, Any]]:
    return [{"sky": f"sky number {i % 4}", "colour": COLOURS[i % 4]} for i in range(count)]


def test_a_classification_is_measured_before_and_after(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]
) -> None:
    held_out = publish("cc", jsonl([*skies(4), {"sky": "sky number 1", "colour": "mauve"}]))

    metrics, report = jobs.run(make_spec(skies(), **CLASSIFICATION, epochs=10, evaluation_dataset=held_out))

    before, after = report.evaluation["before"], report.evaluation["after"]
    assert before["exact_matches"] == 0
    assert before["confusion"].keys() == {*COLOURS, "mauve"}
    assert (after["exact_matches"], after["exact_match_rows"]) == (4, 5)
    assert metrics["exact_match"] == after["exact_match"] == 0.8
    assert after["confusion"] == {**{colour: {colour: 1} for colour in COLOURS}, "mauve": {"green": 1}}
    assert OTHER not in after["confusion"]
    assert after["perplexity"] < before["perplexity"]
    scores = [line["eval_exact_match"] for line in jobs.metrics() if "eval_exact_match" in line]
    assert scores == [0.0, 0.8]


def test_conversations_are_asked_too_and_scores_do_not_depend_on_the_batch(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]
) -> None:
    def conversation(i: int, words: str = "") -> dict[str, Any]:
        asked = {"role": "user", "content": f"{words}the colour of sky {i % 4}"}
        return {"messages": [asked, {"role": "assistant", "content": COLOURS[i % 4]}]}

    uneven = [conversation(i, "sky " * 5 * i) for i in range(4)] + [conversation(i) for i in range(4)]
    held_out = publish("cc", jsonl(uneven))
    rows = [conversation(i) for i in range(16)]

    found = [
        jobs.run(make_spec(rows, epochs=8, evaluation_dataset=held_out, micro_batch_size=size))[1].evaluation
        for size in (2, 8)
    ]

    assert 4 <= found[0]["after"]["exact_matches"] == found[1]["after"]["exact_matches"]
    for when in ("before", "after"):
        assert found[0][when]["perplexity"] == pytest.approx(found[1][when]["perplexity"], rel=1e-3)
    assert found[0]["after"]["exact_match_rows"] == 8


def test_long_answers_are_not_compared(jobs: Any, make_spec: MakeSpec) -> None:
    rows = [{"sky": "sky", "colour": "red " * 60}] * 4

    _, report = jobs.run(make_spec(rows, **CLASSIFICATION, epochs=1, evaluation=True, evaluation_split=0.5))

    assert "exact_match" not in report.evaluation["after"]
    assert "perplexity" in report.evaluation["after"]


def test_progress_and_metrics_tell_pace_and_memory(jobs: Any, make_spec: MakeSpec) -> None:
    jobs.run(make_spec(skies(8), **CLASSIFICATION, epochs=1))

    step = jobs.steps()[-1]
    progress = json.loads(jobs.store.get_bytes(JOB_PREFIX + "progress.json"))
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes"):
        assert progress[name] == step[name], name
    assert step["tokens_per_second"] > 0
    assert step["peak_memory_bytes"] > 50 * 1024**2
    assert progress["eta_seconds"] == 0


def test_adapters_from_the_way_there_pass_the_check_of_uploads(
    jobs: Any, make_spec: MakeSpec, tiny_model: Path
) -> None:
    spec = make_spec(skies(32), **CLASSIFICATION, epochs=2, sampler_interval_steps=3)

    _, report = jobs.run(spec)

    config = json.loads((tiny_model / "config.json").read_text())
    base = BaseModelFacts(spec.base_model.name, "LlamaForCausalLM", config, supports_lora=True)
    assert report.steps == 8
    folders = [f"{JOB_PREFIX}samplers/sampler-{step}/" for step in (3, 6)] + [f"{JOB_PREFIX}adapter/"]
    weights = set()
    for folder in folders:
        files = json.loads(jobs.store.get_bytes(folder + "manifest.json"))["files"]
        sizes = {name: facts["size"] for name, facts in files.items()}
        found = validate_adapter(jobs.store, folder, sizes, base)
        assert (found.r, found.warnings) == (8, [])
        weights.add(files["adapter_model.safetensors"]["sha256"])
    assert len(weights) == 3
    assert "after step 3 of 8" in jobs.store.get_bytes(folders[0] + "README.md").decode()
    assert len(list(jobs.store.list(f"{JOB_PREFIX}samplers/"))) == 8


def test_the_card_says_what_the_adapter_was_made_of(jobs: Any, make_spec: MakeSpec) -> None:
    spec = make_spec(skies(), **CLASSIFICATION, epochs=2, evaluation=True, evaluation_split=0.25)

    _, report = jobs.run(spec)

    card = jobs.adapter("README.md").decode()
    assert card.startswith("---\nbase_model: accounts/acme/inputs/aa\n")
    for source in (spec.base_model, spec.datasets[0]):
        hashed = content_sha256({file.name: file.sha256 for file in source.files})
        assert f"{source.name} | `{hashed}`" in card
    assert "30 rows were trained on, 10 were held out" in card
    assert "| learning rate | 0.02 |" in card
    scores = [report.evaluation[when]["perplexity"] for when in ("before", "after")]
    assert "| perplexity | {:.4g} | {:.4g} |".format(*scores) in card
    assert "`{text}\\n\\nLabel:`" in card
    assert "| torch | 2." in card
    assert str(jobs.folder) not in card


def test_the_plot_shows_the_metrics_and_comes_with_the_last_of_them(
    jobs: Any, make_spec: MakeSpec, tmp_path: Path
) -> None:
    lines = [{"step": step, "loss": 3 / (1 + step), "learning_rate": 1e-4} for step in range(1, 40)]
    lines += [{"step": 0, "eval_loss": 3.5}, {"step": 39, "eval_loss": 0.25, "grad_norm": None}]
    draw = partial(draw_plot, title="a < job", settings_dir=tmp_path / "fonts")

    with ProgressReport(jobs.store, JOB_PREFIX, draw=draw) as progress:
        for line in lines:
            progress.add_metrics(line)

    svg = jobs.store.get_bytes(JOB_PREFIX + "plot.svg").decode()
    for words in ("a &lt; job", "loss, smoothed", "evaluation loss", "learning rate", "step"):
        assert words in svg, words
    (tmp_path / "plot.png").write_bytes(jobs.store.get_bytes(JOB_PREFIX + "plot.png"))
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (1080, 720)
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 50
    assert draw(lines) == draw(lines)


def test_a_plot_that_cannot_be_drawn_is_no_reason_to_fail(jobs: Any) -> None:
    with ProgressReport(jobs.store, JOB_PREFIX, draw=lambda metrics: {}[len(metrics)]) as progress:
        progress.add_metrics({"step": 1, "loss": 1.0})

    assert jobs.losses() == [1.0]
