"""`python -m benchmarks.trl_script MODEL DATA.jsonl FOLDER`: fine-tuning as trl's documentation has it.

What the service's benchmark compares a job's start with: the same imports, model, rows and settings, and
nothing around them. It says when its first step is done, and ends there.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

ROWS_AT_ONCE = 16


class EndAfterFirstStep(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        print("first step", flush=True)
        control.should_training_stop = True


def main(model: str, data: str, folder: str) -> None:
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa"),
        args=SFTConfig(
            output_dir=f"{folder}/output",
            num_train_epochs=2,
            per_device_train_batch_size=ROWS_AT_ONCE,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=load_dataset("json", data_files=data, split="train", cache_dir=f"{folder}/datasets"),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[EndAfterFirstStep()],
    )
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
