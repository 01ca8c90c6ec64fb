"""The finished adapter: written in PEFT's layout, checked, and uploaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from controlplane.storage import ObjectStore
from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure
from workers.training.outcome.result import outlast_outages
from workers.training.running.checkpoints import upload_folder

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FIREWORKS = "fireworks.json"


def write_adapter(model: Any, folder: Path, spec: JobSpec) -> list[str]:
    """Write the adapter's files and return their names; raises TrainingFailure for weights that are none."""
    model.save_pretrained(folder, save_embedding_layers=False)
    _check_weights(folder / WEIGHTS)
    return dress_adapter(folder, spec)


def dress_adapter(folder: Path, spec: JobSpec) -> list[str]:
    """Make what PEFT has saved fit to be handed out; returns the names of its files."""
    config = json.loads((folder / CONFIG).read_text())
    config["base_model_name_or_path"] = spec.base_model.name  # PEFT writes the path on this node.
    config["target_modules"] = sorted(config["target_modules"])  # A set: its order changes from run to run.
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if spec.jinja_template is None:
        return [CONFIG, WEIGHTS]
    conversation = {"style": "jinja", "args": {"template": spec.jinja_template}}
    (folder / FIREWORKS).write_text(json.dumps({"conversation_config": conversation}, indent=2) + "\n")
    return [CONFIG, WEIGHTS, FIREWORKS]


def upload_adapter(store: ObjectStore, spec: JobSpec, folder: Path, names: list[str]) -> None:
    outlast_outages(lambda: upload_folder(store, spec.output_prefix + "adapter/", folder, names))


def load_weights(model: Any, path: Path) -> None:
    """Put the adapter weights of a file into the model."""
    set_peft_model_state_dict(model, load_file(path))


def _check_weights(path: Path) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values()):
        raise TrainingFailure(
            "INVALID_ARGUMENT",
            "LOSS_DIVERGED",
            "the adapter's weights are not finite: training diverged; a smaller learning rate may help",
        )
