"""What a job runs with in fact, read from its trainer: what was asked for, defaults and the plan together."""

from __future__ import annotations

from typing import Any

from workers.training.config import JobSpec
from workers.training.model.footprint import Fit


def effective_settings(spec: JobSpec, trainer: Any, fit: Fit) -> dict[str, Any]:
    """As the job shows them."""
    args, model = trainer.args, trainer.model
    adapter = model.peft_config["default"]
    quantized = getattr(model.get_base_model(), "is_loaded_in_4bit", False)
    return {
        "tuning_method": "QLORA" if quantized else "LORA",
        "precision": "NF4" if quantized else str(model.get_base_model().dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "lora_target_modules": sorted(adapter.target_modules),
        "micro_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "gradient_checkpointing": args.gradient_checkpointing,
        "processes": args.world_size,
        "shards": fit.load.shards,
        "seed": args.seed,
        "memory_bytes": fit.footprint.total,
    }
