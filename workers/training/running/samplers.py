"""Adapters kept on the way: each can be made a model of, whatever becomes of the job.

samplers/sampler-<step>/<file>, and last of all its manifest.json, as a checkpoint has it.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from transformers import TrainerCallback

from controlplane.storage import ObjectStore, StorageUnavailable
from workers.training.job import Job
from workers.training.model.adapter import write_adapter
from workers.training.outcome.card import write_card
from workers.training.running.checkpoints import MANIFEST, upload_folder

log = logging.getLogger(__name__)

MOST_KEPT = 50
SAMPLERS = "samplers/"
MANIFEST_KEY = re.compile(r"sampler-(\d{1,12})/manifest\.json")


class KeepSamplers(TrainerCallback):
    """Every so many steps; not after the last, whose adapter becomes the job's model."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._every = job.spec.sampler_interval_steps
        self._prefix = job.spec.output_prefix + SAMPLERS

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0 and state.global_step < state.max_steps:
            self._job.pace.rest()
            self._keep(kwargs["model"], state.global_step)

    def _keep(self, model: Any, step: int) -> None:
        folder = self._job.work_dir / "sampler"
        names = [*write_adapter(model, folder, self._job.spec), write_card(folder, self._job, step)]
        try:
            upload_folder(self._job.store, f"{self._prefix}sampler-{step}/", folder, names)
            drop_oldest(self._job.store, self._prefix)
        except StorageUnavailable as error:
            self._job.warn(f"the adapter of step {step} was not kept: {error}")
            return
        log.info("the adapter of step %d is kept", step)


def drop_oldest(store: ObjectStore, prefix: str) -> None:
    """All but the newest. The manifest goes first: half a checkpoint is none."""
    found = (MANIFEST_KEY.fullmatch(info.key.removeprefix(prefix)) for info in store.list(prefix))
    steps = sorted((int(match[1]) for match in found if match), reverse=True)
    for step in steps[MOST_KEPT:]:
        store.delete(f"{prefix}sampler-{step}/{MANIFEST}")
        store.delete_prefix(f"{prefix}sampler-{step}/")
