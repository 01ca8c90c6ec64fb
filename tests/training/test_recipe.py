"""Whole jobs on a tiny model, with the real trl and the real object store."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load, load_file, save_file

from workers.training.config import JobSpec
from workers.training.errors import Interrupted, TrainingFailure, describe_failure

pytestmark = pytest.mark.training

JOB_PREFIX = "accounts/acme/fine-tuning-jobs/77/"
COLOURS = ["red", "green", "blue", "white"]
MakeSpec = Callable[..., JobSpec]


def conversations(count: int = 32, **extra: Any) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"the colour of sky {i % 4}"},
                {"role": "assistant", "content": COLOURS[i % 4], **extra},
            ]
        }
        for i in range(count)
    ]


def completions(count: int = 32) -> list[dict[str, Any]]:
    return [{"sky": i % 4, "colour": COLOURS[i % 4]} for i in range(count)]


COMPLETION = {
    "kind": "text_completion",
    "input_template": "the colour of sky {sky} is",
    "output_template": " {colour}",
}


def test_a_job_learns_its_task_and_leaves_an_adapter(jobs: Any, make_spec: MakeSpec) -> None:
    spec = make_spec(conversations(), epochs=8, evaluation=True, evaluation_split=0.25)

    metrics, report = jobs.run(spec)

    losses = jobs.losses()
    assert len(losses) == report.steps == 24
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]))
    assert metrics["epoch"] == 8
    assert (report.rows_in, report.rows_trained, report.rows_evaluated) == (32, 24, 8)
    assert metrics["tokens_seen"] == 8 * report.tokens > report.trained_tokens > 0
    assert report.masking == "prefix"
    manifest = json.loads(jobs.adapter("manifest.json"))
    assert set(manifest["files"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    for name, facts in manifest["files"].items():
        content = jobs.adapter(name)
        assert facts == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    config = json.loads(jobs.adapter("adapter_config.json"))
    assert config["base_model_name_or_path"] == spec.base_model.name
    assert set(config["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert any(
        weights.any()
        for name, weights in load(jobs.adapter("adapter_model.safetensors")).items()
        if "lora_B" in name
    )
    progress = json.loads(jobs.store.get_bytes(JOB_PREFIX + "progress.json"))
    assert (progress["phase"], progress["step"], progress["max_steps"]) == ("UPLOADING", 24, 24)
    assert progress["tokens_seen"] == metrics["tokens_seen"] == jobs.steps()[-1]["tokens_seen"] > 0


def test_a_template_of_the_job_is_used_and_kept(jobs: Any, make_spec: MakeSpec) -> None:
    template = (
        "{% if mode != 'train' %}{{ bos_token }}{% endif %}{% for m in messages %}[{{ m.role }}]"
        "{% if m.role == 'assistant' and mode == 'train' %}"
        "{{ unk_token + m.content + '<|end|>' + unk_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if messages[-1].role != 'assistant' %}[assistant]{% endif %}"
    )

    _, report = jobs.run(make_spec(conversations(8), jinja_template=template, epochs=1))

    assert report.masking == "unk_token"
    assert [finding["code"] for finding in report.findings] == ["DUPLICATE_ROWS"]
    settings = json.loads(jobs.adapter("fireworks.json"))
    assert settings == {"conversation_config": {"style": "jinja", "args": {"template": template}}}
    assert "fireworks.json" in json.loads(jobs.adapter("manifest.json"))["files"]


def test_serving_that_prompts_otherwise_than_training_is_reported(jobs: Any, make_spec: MakeSpec) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]\n{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
        "{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
    )

    _, report = jobs.run(make_spec(conversations(8), jinja_template=template, epochs=1))

    assert any("differs from what stands before the answer" in warning for warning in report.warnings)


def test_completions_are_trained_and_evaluated_on_another_dataset(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]
) -> None:
    held_out = publish("cc", jsonl(completions(4)))

    metrics, report = jobs.run(make_spec(completions(), **COMPLETION, epochs=6, evaluation_dataset=held_out))

    assert report.masking == "completion"
    assert (report.rows_trained, report.rows_evaluated) == (32, 4)
    assert metrics["eval_loss"] < 0.5 * jobs.losses()[0]
    assert [line["step"] for line in jobs.metrics() if "eval_loss" in line] == [0, 4, 8, 12, 16, 20, 24]


def test_the_evaluation_does_not_depend_on_the_batch_size(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]
) -> None:
    uneven = [{"sky": 1, "colour": "red " * (1 + i * i)} for i in range(5)]
    held_out = publish("cc", jsonl(uneven))

    losses = [
        jobs.run(
            make_spec(completions(8), **COMPLETION, epochs=1, evaluation_dataset=held_out, micro_batch_size=m)
        )[0]["eval_loss"]
        for m in (1, 4)
    ]

    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_early_stopping_keeps_the_best_adapter(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], jsonl: Callable[..., Path]
) -> None:
    opposite = publish("cc", jsonl([{"sky": i % 4, "colour": COLOURS[3 - i % 4]} for i in range(8)]))

    metrics, report = jobs.run(
        make_spec(completions(), **COMPLETION, epochs=20, early_stop=True, evaluation_dataset=opposite)
    )

    _, *evaluations = [line["eval_loss"] for line in jobs.evaluations()]
    assert metrics["epoch"] < 20
    assert report.stopped_early
    assert min(evaluations[-2:]) > min(evaluations)
    assert metrics["eval_loss"] == min(evaluations)
    assert any("was kept" in warning for warning in report.warnings)


def test_a_warm_start_goes_on_from_the_adapter(
    jobs: Any, make_spec: MakeSpec, publish: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    jobs.run(make_spec(conversations(), epochs=8))
    first = jobs.losses()
    paths = [tmp_path / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    for path in paths:
        path.write_bytes(jobs.adapter(path.name))

    jobs.run(make_spec(conversations(), epochs=0.25, warm_start=publish("dd", *paths)))

    assert jobs.losses()[0] < 0.6 * first[0]


def test_the_base_model_can_be_kept_in_four_bits(jobs: Any, make_spec: MakeSpec) -> None:
    jobs.run(make_spec(conversations(), epochs=8, quantize_base=True))

    assert jobs.losses()[-1] < 0.6 * jobs.losses()[0]


def test_a_loss_that_diverges_fails_by_name(
    jobs: Any,
    make_spec: MakeSpec,
    publish: Callable[..., dict[str, Any]],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    weights = load_file(tiny_model / "model.safetensors")
    weights["model.norm.weight"][:] = math.inf
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(TrainingFailure, match="diverged at step 1") as caught:
        jobs.run(make_spec(conversations(), base_model=publish("ee", *sorted(broken.iterdir()))))

    assert caught.value.reason == "LOSS_DIVERGED"


def test_modules_that_the_model_has_not_are_named(jobs: Any, make_spec: MakeSpec) -> None:
    with pytest.raises(ValueError) as caught:
        jobs.run(make_spec(conversations(8), lora_target_modules=["w9"]))

    assert describe_failure(caught.value).reason == "LORA_TARGET_MODULES"


def test_only_the_named_modules_are_trained(jobs: Any, make_spec: MakeSpec) -> None:
    jobs.run(make_spec(conversations(8), epochs=1, lora_target_modules=["q_proj", "v_proj"]))

    names = load(jobs.adapter("adapter_model.safetensors"))
    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}


def test_a_stop_before_training_leaves_nothing_half_done(jobs: Any, make_spec: MakeSpec) -> None:
    jobs.stop.requested = True

    with pytest.raises(Interrupted):
        jobs.run(make_spec(conversations()))

    assert jobs.store.head(JOB_PREFIX + "result.json") is None


def test_a_first_evaluation_that_was_stopped_is_made_when_the_job_goes_on(
    jobs: Any, make_spec: MakeSpec
) -> None:
    spec = make_spec(conversations(8), epochs=1, batch_size=4, evaluation=True)
    jobs.stop.requested = True
    with pytest.raises(Interrupted):
        jobs.run(spec)
    jobs.stop.requested = False

    _, report = jobs.run(spec)

    assert [line["step"] for line in jobs.evaluations()] == [0, report.steps]
    assert report.evaluation["before"]["loss"] > report.evaluation["after"]["loss"]


def test_packed_rows_are_learned_as_if_each_stood_alone(jobs: Any, make_spec: MakeSpec) -> None:
    longest = [{"role": "user", "content": "sky " * 9}, {"role": "assistant", "content": "white"}]
    rows = [*conversations(24), {"messages": longest}]
    one_step = {"epochs": 1, "batch_size": 32, "cutoff_length": 128, "evaluation": True}
    jobs.run(make_spec(rows, **one_step))
    alone = [*jobs.steps(), *jobs.evaluations()[-1:]]
    packed = {"batch_tokens": 160, "micro_batch_size": 1}
    _, report = jobs.run(make_spec(rows, **{**one_step, **packed}))

    assert (report.steps, report.micro_batch_size) == (1, 1)
    first, after = [*jobs.steps(), *jobs.evaluations()[-1:]]
    assert first["tokens_seen"] == alone[0]["tokens_seen"]
    for name in ("loss", "grad_norm", "mean_token_accuracy"):
        assert first[name] == pytest.approx(alone[0][name], rel=2e-3), name
    # The adapter that comes of it, measured on rows that it has not seen.
    assert after["eval_loss"] == pytest.approx(alone[1]["eval_loss"], rel=2e-3)


def test_a_pack_holds_so_many_tokens_and_a_step_so_many_packs(jobs: Any, make_spec: MakeSpec) -> None:
    spec = make_spec(conversations(32), epochs=2, batch_size=2, batch_tokens=128, micro_batch_size=1)
    _, report = jobs.run(spec)
    packs = -(-report.tokens // 128)
    assert report.steps_per_epoch >= packs // 2 > 1
    assert report.steps == len(jobs.losses()) == 2 * report.steps_per_epoch
    assert jobs.losses()[-1] < jobs.losses()[0]


def test_weight_decay_pulls_weights_towards_nothing(jobs: Any, make_spec: MakeSpec) -> None:
    def norm(decay: float) -> float:
        jobs.run(make_spec(conversations(), weight_decay=decay, lr_scheduler_type="constant"))
        weights = load(jobs.adapter("adapter_model.safetensors"))
        return sum(float((value**2).sum()) for name, value in weights.items() if "lora_A" in name)

    assert norm(1.0) < 0.9 * norm(0.0)
