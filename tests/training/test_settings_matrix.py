"""Every setting, changed alone, changes what the trainer ran with, and nothing else.

Read from the trainer, its model and its log once it has run, never from what it was told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from controlplane.storage import ObjectStore
from tests.training.conftest import JOB_PREFIX, write_rows
from workers.training.config import JobSpec
from workers.training.running.checkpoints import list_checkpoints

pytestmark = pytest.mark.training

ROWS = [
    {
        "messages": [
            {"role": "user", "content": "sky " * (1 + i)},
            {"role": "assistant", "content": f"colour {i}"},
        ]
    }
    for i in range(12)
]
BASE = {"epochs": 1, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3}
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}<|end|>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}[assistant]{% endif %}"

EFFECTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"epochs": 1.5}, {"steps": 5, "rates": ANY, "loss": ANY}),
    ({"learning_rate": 2e-3}, {"rates": (2e-3, 1.5e-3, 5e-4), "loss": ANY}),
    ({"lr_scheduler_type": "constant"}, {"rates": (1e-3, 1e-3, 1e-3), "loss": ANY}),
    ({"warmup_steps": 2}, {"rates": (0.0, 5e-4, 1e-3), "loss": ANY}),
    # What decay does to the weights has a test of its own: three steps are too few to see it.
    ({"weight_decay": 0.25}, {"decay": 0.25}),
    ({"batch_size": 6}, {"rows_a_step": 6, "steps": 2, "rates": (1e-3, 5e-4), "loss": ANY}),
    # The same step in other portions: its loss stays the same.
    ({"micro_batch_size": 4}, {"rows_at_once": 4}),
    (
        {"batch_tokens": 128, "micro_batch_size": 1, "batch_size": 1},
        {
            "packed": True,
            "rows_at_once": 1,
            "rows_a_step": 1,
            "rows": ANY,
            "longest": ANY,
            "text": ANY,
            "steps": ANY,
            "rates": ANY,
            "loss": ANY,
        },
    ),
    ({"lora_rank": 4}, {"rank": 4, "loss": ANY, "start": ANY}),
    ({"lora_alpha": 64}, {"alpha": 64, "loss": ANY}),
    ({"lora_target_modules": ["q_proj"]}, {"targets": ["q_proj"], "loss": ANY, "start": ANY}),
    ({"lora_dropout": 0.5}, {"dropout": 0.5, "loss": ANY}),
    (
        {"cutoff_length": 12},
        {"longest": 12, "rows": ANY, "text": ANY, "steps": ANY, "rates": ANY, "loss": ANY},
    ),
    ({"quantize_base": True}, {"four_bits": True, "loss": ANY, "start": ANY}),
    (
        {"evaluation": True},
        {"rows": 10, "evaluated": True, "loss": ANY},
    ),
    (
        {"evaluation": True, "evaluation_split": 0.5},
        {"rows": 6, "evaluated": True, "steps": 2, "rates": ANY, "longest": ANY, "loss": ANY, "text": ANY},
    ),
    ({"seed": 7}, {"seed": 7, "start": ANY, "loss": ANY}),
    ({"jinja_template": TEMPLATE}, {"text": ANY, "longest": ANY, "loss": ANY}),
    ({"checkpoint_interval_steps": 1}, {"checkpoints": [2, 1]}),
]


@pytest.fixture
def observe(
    jobs: Any, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Callable[[JobSpec], dict[str, Any]]:
    """Runs a job, and reads what it ran with from its trainer."""
    from workers.training import recipe

    caught: dict[str, Any] = {}
    build = recipe.build_trainer

    def build_and_catch(*parts: Any) -> Any:
        trainer, held_out = build(*parts)
        weights = [
            weight.sum().item() for name, weight in trainer.model.named_parameters() if "lora_A" in name
        ]
        caught.update(trainer=trainer, start=weights)
        return trainer, held_out

    monkeypatch.setattr(recipe, "build_trainer", build_and_catch)

    def run(spec: JobSpec) -> dict[str, Any]:
        object_store.delete_prefix(JOB_PREFIX)
        jobs.run(spec)
        return facts(object_store, caught["trainer"], caught["start"])

    return run


def facts(store: ObjectStore, trainer: Any, start: list[float]) -> dict[str, Any]:
    args, model = trainer.args, trainer.model
    adapter = model.peft_config["default"]
    lines = [json.loads(line) for line in store.get_bytes(JOB_PREFIX + "metrics.jsonl").splitlines()]
    steps = [line for line in lines if "loss" in line]
    dropouts = {
        module.p
        for name, module in model.named_modules()
        if name.endswith("lora_dropout.default") and hasattr(module, "p")
    }
    return {
        "steps": trainer.state.global_step,
        "rates": tuple(round(line["learning_rate"], 9) for line in steps),
        "loss": [round(line["loss"], 3) for line in steps],
        "decay": trainer.optimizer.param_groups[0]["weight_decay"],
        "rows_at_once": args.per_device_train_batch_size,
        "rows_a_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "packed": trainer.data_collator.padding_free,
        "rank": {module.r["default"] for module in model.modules() if hasattr(module, "lora_A")}.pop(),
        "alpha": adapter.lora_alpha,
        "targets": sorted({name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}),
        "dropout": max(dropouts, default=0.0),
        "four_bits": any(type(module).__name__ == "Linear4bit" for module in model.modules()),
        "longest": max(len(row["input_ids"]) for row in trainer.train_dataset),
        "rows": len(trainer.train_dataset),
        "text": trainer.train_dataset[len(trainer.train_dataset) - 1]["input_ids"],
        "evaluated": any("eval_loss" in line for line in lines),
        "checkpoints": list_checkpoints(store, JOB_PREFIX),
        "seed": args.seed,
        "start": start,
    }


def test_every_setting_has_its_effect_and_no_other(
    observe: Callable[[JobSpec], dict[str, Any]], make_spec: Callable[..., JobSpec]
) -> None:
    before = observe(make_spec(ROWS, **BASE))
    wrong = {}
    for changed, expected in EFFECTS:
        after = observe(make_spec(ROWS, **BASE | changed))
        found = {name: value for name, value in after.items() if value != before[name]}
        if found != expected:
            wrong[str(changed)] = found
    assert not wrong


def test_held_out_rows_of_their_own_leave_the_training_rows_alone(
    observe: Callable[[JobSpec], dict[str, Any]],
    make_spec: Callable[..., JobSpec],
    publish: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    own = publish("cc", write_rows(tmp_path / "heldout.jsonl", ROWS[:3]))
    found = observe(make_spec(ROWS, **BASE, evaluation_dataset=own))
    assert (found["rows"], found["evaluated"]) == (12, True)


def test_every_setting_of_a_job_is_in_the_matrix() -> None:
    elsewhere = {
        # What a job reads, and where it writes: tested with the recipe.
        *("job_uid", "job_name", "output_prefix", "base_model", "warm_start", "datasets", "kind"),
        *("input_template", "output_template", "text_field", "label_field", "preference"),
        # Tests of their own: two processes, early stopping, adapters on the way, tracking, time.
        *("processes", "divide_base", "early_stop", "sampler_interval_steps", "wandb", "checkpoint_seconds"),
        *("evaluation_dataset", "day"),
    }
    tested = {name for changed, _ in EFFECTS for name in changed}
    assert tested | (elsewhere & JobSpec.model_fields.keys()) == JobSpec.model_fields.keys()
