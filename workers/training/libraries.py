"""The libraries that training needs. To import them takes seconds: that is most of a short job's start."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.training.config import JobSpec

if TYPE_CHECKING:
    from workers.training.job import Job


def prepare_libraries(spec: JobSpec, work_dir: Path) -> None:
    """Nothing is fetched but from the object store, and nothing is written outside the job's folder."""
    for name, needed in (("bitsandbytes", spec.quantize_base), ("wandb", spec.wandb is not None)):
        if not needed:
            # Wherever they are installed peft imports the one and trl the other, which takes a second.
            sys.modules[name] = None  # type: ignore[assignment]
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(work_dir / "huggingface"),
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    # Threads that wait for each other must not spin: on a busy machine that costs ten times the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load_recipe(kind: str) -> Callable[[Job], dict[str, Any]]:
    """`recipe.fine_tune`, with all that a job of this kind imports.

    Millions of objects come with them, and stay. The garbage collector looks for none of them while they are
    made, nor afterwards: that took a fifth of the imports, and a third of a second before the first step.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        from workers.training.objectives.objective import objective_of
        from workers.training.recipe import fine_tune

        objective_of(kind)
    finally:
        gc.freeze()
        if was_collecting:
            gc.enable()
    return fine_tune
