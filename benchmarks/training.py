"""How fast a job trains, and what the service adds to it, in one run: `python -m benchmarks.training`.

The same model learns the same rows with the same settings three times a round: as a Hearth job, with a plain
trl script, and in a bare PyTorch loop. Machines differ and are shared, so what counts are ratios, all sides
of which are measured in turn; beside other programs only those of processor time mean anything. `--service`
measures a whole `hearth up` too: from creating a job to its first step, and from the last to `COMPLETED`.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

from benchmarks.service import measure_service
from benchmarks.training_inputs import make_model, make_rows, object_store, spec_of
from workers.training.config import JobSpec
from workers.training.job import Job
from workers.training.libraries import load_recipe
from workers.training.outcome.result import Report
from workers.training.running.progress import ProgressReport
from workers.training.running.stop import StopRequest

AGAINST_TRL = 0.98
AGAINST_A_LOOP = 0.9


@dataclass(frozen=True)
class Bench:
    spec: JobSpec
    store: Any
    folder: Path
    tokens: int = 0
    """Of all steps, padding aside."""


@dataclass(frozen=True)
class Spent:
    seconds: float
    cpu_seconds: float
    """Of all threads."""

    @classmethod
    def by_now(cls) -> Self:
        return cls(time.monotonic(), time.process_time())

    def since(self, earlier: Spent) -> Spent:
        return Spent(self.seconds - earlier.seconds, self.cpu_seconds - earlier.cpu_seconds)


def hearth(bench: Bench) -> Spent:
    """From the recipe's first step to its last."""
    fine_tune = load_recipe(bench.spec.kind)
    from workers.training import recipe

    found: list[Spent] = []
    train = recipe.train

    def timed(*given: Any) -> float:
        started = Spent.by_now()
        seconds = train(*given)
        found.append(Spent.by_now().since(started))
        return seconds

    folders = bench.folder / "cache", bench.folder / "work"
    with (
        mock.patch.object(recipe, "train", timed),
        ProgressReport(bench.store, bench.spec.output_prefix) as progress,
    ):
        fine_tune(Job(bench.spec, bench.store, progress, StopRequest(), Report(), *folders))
    return found[0]


def trl(bench: Bench) -> Spent:
    """A script as trl's documentation has it, on the same examples."""
    from trl import SFTConfig, SFTTrainer

    model, examples = _model(bench), _examples(bench)
    spec = bench.spec
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(bench.folder / "trl"),
            num_train_epochs=spec.epochs,
            per_device_train_batch_size=spec.micro_batch_size,
            gradient_accumulation_steps=spec.batch_size // spec.micro_batch_size,
            learning_rate=spec.learning_rate,
            lr_scheduler_type=spec.lr_scheduler_type,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            max_length=None,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=examples,
        processing_class=_tokenizer(bench),
        peft_config=_lora(bench),
    )
    started = Spent.by_now()
    trainer.train()
    return Spent.by_now().since(started)


def loop(bench: Bench) -> Spent:
    """Nothing but batches, the model, its loss, clipping and AdamW."""
    import torch
    from peft import get_peft_model
    from transformers import get_cosine_schedule_with_warmup

    spec, examples = bench.spec, _examples(bench)
    model = get_peft_model(_model(bench), _lora(bench)).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, spec.learning_rate, weight_decay=0.0)
    order = random.Random(spec.seed)
    steps = int(spec.epochs * len(examples) / spec.batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, steps)
    started = Spent.by_now()
    for _ in range(int(spec.epochs)):
        rows = order.sample(range(len(examples)), len(examples))
        for start in range(0, len(rows), spec.batch_size):
            chosen = [examples[row] for row in rows[start : start + spec.batch_size]]
            counted = sum(label != -100 for row in chosen for label in row["labels"][1:])
            for first in range(0, len(chosen), spec.micro_batch_size):
                batch = _padded(chosen[first : first + spec.micro_batch_size])
                logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                loss = torch.nn.functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
                )
                (loss / counted).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return Spent.by_now().since(started)


def _padded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def column(name: str, fill: int) -> Any:
        return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])

    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": column("input_ids", 0),
        "labels": column("labels", -100),
        "attention_mask": torch.tensor(mask),
    }


def _model(bench: Bench) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        bench.folder / "model", dtype=torch.float32, attn_implementation="sdpa"
    )


def _tokenizer(bench: Bench) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bench.folder / "model")


def _lora(bench: Bench) -> Any:
    from peft import LoraConfig

    from controlplane.checks.lora_targets import tunable_modules

    spec, modules = bench.spec, list(tunable_modules("LlamaForCausalLM"))
    return LoraConfig(r=spec.lora_rank, lora_alpha=spec.alpha, target_modules=modules, task_type="CAUSAL_LM")


def _examples(bench: Bench) -> Any:
    """The very examples that the job trained on."""
    from datasets import Dataset

    return Dataset.from_file(str(bench.folder / "work" / "train.arrow"))


CONTESTANTS: dict[str, Callable[[Bench], Spent]] = {"hearth": hearth, "trl": trl, "loop": loop}


def run_alone(contestant: Callable[[Bench], Spent], bench: Bench) -> Spent:
    """As in a process of its own, where nobody else's garbage lies and no library was put aside for it."""
    gc.unfreeze()
    gc.collect()
    return contestant(bench)


def compare(rounds: int, rows: int, length: int, folder: Path) -> dict[str, list[Spent]]:
    """What every round took, by contestant; in each round another one begins."""
    with object_store(folder) as store:
        model = make_model(folder / "model")
        bench = Bench(spec_of(store, model, make_rows(folder / "rows.jsonl", rows, length)), store, folder)
        hearth(bench)  # Also makes the examples for the others, and warms up.
        found: dict[str, list[Spent]] = {name: [] for name in CONTESTANTS}
        for number in range(rounds):
            names = list(CONTESTANTS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found[name].append(run_alone(CONTESTANTS[name], bench))
            told = (f"{name} {found[name][-1].seconds:.2f} s" for name in names)
            used = (f"{found[name][-1].cpu_seconds:.2f}" for name in names)
            print(f"round {number + 1}: {', '.join(told)}; of processors {', '.join(used)}")
        gc.unfreeze()  # Else some libraries call it a leak when the process ends.
        tokens = sum(len(row["input_ids"]) for row in _examples(bench)) * bench.spec.epochs
    for name, spent in found.items():
        print(f"{name}: {tokens / statistics.median(one.seconds for one in spent):,.0f} tokens/s")
    return found


def ratios(found: dict[str, list[Spent]], other: str) -> tuple[float, float]:
    """Of speeds, by the clock and by processor time: medians of the rounds, whose sides lie close in time."""
    pairs = list(zip(found[other], found["hearth"], strict=True))
    return (
        statistics.median(theirs.seconds / ours.seconds for theirs, ours in pairs),
        statistics.median(theirs.cpu_seconds / ours.cpu_seconds for theirs, ours in pairs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=256, help="Tokens of a row, about.")
    parser.add_argument("--service", action="store_true", help="Also measure a whole platform.")
    chosen = parser.parse_args()
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        found = compare(chosen.rounds, chosen.rows, chosen.length, Path(folder))
        for other, target in (("trl", AGAINST_TRL), ("loop", AGAINST_A_LOOP)):
            clock, processors = ratios(found, other)
            print(f"tokens/s, hearth / {other}: {clock:.3f} (target ≥ {target})")
            print(f"  tokens per second of processor time: {processors:.3f}")
    if chosen.service:
        with tempfile.TemporaryDirectory() as folder:
            measure_service(Path(folder))
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
