"""A base model that is divided among the processes of a job, each layer by itself (FSDP).

Every process holds a part of every layer. The others' parts are put together for as long as the layer is
at work, and dropped again. The adapter is small, and whole in each: its gradients are averaged, as they are
where each process has the whole base. So checkpoints, the optimizer's state and the result are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from workers.training.errors import TrainingFailure
from workers.training.objectives.objective import Objective
from workers.training.running.ranks import Rank
from workers.training.running.together import from_first

log = logging.getLogger(__name__)

T = TypeVar("T")


def division(rank: Rank) -> dict[str, Any]:
    """Arguments of `from_pretrained`, by which each process reads its own part of the files alone."""
    return {"distributed_config": DistributedConfig(fsdp_size=rank.count)}


def check_divided(model: Any, name: str, rank: Rank) -> None:
    """Raises TrainingFailure for a model whose layers were not found: all of it would be put together."""
    # By this peft takes the model for one whose layers are computed in parts, and puts all of it together to
    # save the adapter.
    model._tp_size = None
    if divided_layers(model) < model.config.get_text_config().num_hidden_layers:
        architecture = next(iter(model.config.architectures or []), "")
        raise TrainingFailure(
            "FAILED_PRECONDITION",
            "CANNOT_BE_DIVIDED",
            f"{name} ({architecture}) does not fit one accelerator, and its layers cannot be divided",
        )
    sizes: list[Any] = [None] * rank.count
    dist.all_gather_object(sizes, (weights_here(model), model.num_parameters()))
    if rank.is_first:
        parts, total = ", ".join(f"{here:,}" for here, _ in sizes), f"{sizes[0][1]:,}"
        log.info("the base's %s weights are divided among %d processes: %s", total, rank.count, parts)


def evaluated_together(rank: Rank, objective: Objective) -> Objective:
    """All processes evaluate, and believe the first: what they do next depends on it to the last bit."""

    def together(work: Callable[..., T]) -> Callable[..., T]:
        def look(trainer: Any, *parts: Any) -> T:
            found = work(trainer, *parts)
            drop_gathered(trainer.model)
            return from_first(rank, lambda: found)

        return look

    ask = objective.ask and together(objective.ask)
    return replace(objective, evaluate=together(objective.evaluate), ask=ask)


def drop_gathered(model: Any) -> None:
    """Without a way back the last layer stays whole, until one process alone saves: then they differ."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def divided_layers(model: Any) -> int:
    return sum(isinstance(layer, FSDPModule) for name, layer in model.named_modules() if _is_numbered(name))


def weights_here(model: Any) -> int:
    """How many of the model's weights this process keeps."""
    return sum(
        weight.to_local().numel() if isinstance(weight, DTensor) else weight.numel()
        for weight in model.parameters()
    )


def _is_numbered(name: str) -> bool:
    return name.rpartition(".")[2].isdigit()
