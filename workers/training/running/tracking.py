"""Logging to Weights & Biases, for jobs that ask for it. A job never fails or waits for it: it trains on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from workers.training.config import JobSpec, Wandb
from workers.training.errors import EXIT_INTERRUPTED, Interrupted
from workers.training.job import Job

KEY_VARIABLE = "WANDB_API_KEY"
"""Holds the key in the environment that a trainer starts with: a specification holds no secrets."""
START_SECONDS = 30.0
FINISH_SECONDS = 60.0
FOLDERS = ("CACHE", "CONFIG", "DATA", "ARTIFACT")
"""What the library would keep in the home folder otherwise."""


class Run(Protocol):
    """A run there; of ours, what is used of it."""

    url: str | None

    def log(self, data: dict[str, Any], step: int | None = None) -> None: ...

    def mark_preempting(self) -> None: ...

    def finish(self, exit_code: int | None = None) -> None: ...


@contextmanager
def tracked(job: Job) -> Iterator[None]:
    """Within, every line of the job's metrics goes there too."""
    run = start_run(job) if job.spec.wandb else None
    if run is None:
        yield
        return
    job.progress.update(wandb_url=run.url or "")
    job.progress.on_metrics = lambda line: send(job, run, line)
    try:
        yield
    except Interrupted:
        finish(job, run, exit_code=EXIT_INTERRUPTED)
        raise
    except BaseException:
        finish(job, run, exit_code=1)
        raise
    finish(job, run, exit_code=0)


def start_run(job: Job) -> Run | None:
    """The run there, the same in every attempt of the job; None, and a warning, where there can be none."""
    assert job.spec.wandb is not None
    key = job.wandb_key
    if not key and job.spec.wandb.mode == "online":
        warn(job, "its API key was forgotten when the job ended; create a new job to log again")
        return None
    for folder in FOLDERS:
        os.environ[f"WANDB_{folder}_DIR"] = str(job.work_dir / "wandb" / folder.lower())
    try:
        import wandb

        run: Run = wandb.init(
            entity=job.spec.wandb.entity or None,
            project=job.spec.wandb.project,
            id=job.spec.wandb.run_id,
            name=job.spec.job_name.rsplit("/", 1)[-1],
            resume="allow",
            config=shown_settings(job.spec),
            settings=run_settings(job.spec.wandb, key, job.work_dir),
        )
    except ImportError:
        warn(job, "the package wandb is not installed where jobs are trained")
        return None
    except Exception as error:  # noqa: BLE001
        warn(job, without_key(str(error), key).splitlines()[0] if str(error) else type(error).__name__)
        return None
    return run


def run_settings(wanted: Wandb, key: str, work_dir: Path) -> Any:
    """Everything stays in the job's folder, and of the machine and the code nothing is sent."""
    import wandb

    return wandb.Settings(
        api_key=key or None,
        base_url=wanted.base_url,
        mode=wanted.mode,
        root_dir=str(work_dir),
        silent=True,
        quiet=True,
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        init_timeout=START_SECONDS,
        login_timeout=START_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=False,
        x_graphql_retry_max=2,
        x_graphql_timeout_seconds=START_SECONDS / 3,
    )


def shown_settings(spec: JobSpec) -> dict[str, Any]:
    """The job's settings, and what it reads by name: no addresses, no files."""
    chosen = spec.model_dump(
        exclude={"wandb", "output_prefix", "base_model", "warm_start", "datasets", "evaluation_dataset"}
    )
    named = {"base_model": spec.base_model, "warm_start": spec.warm_start, "dataset": spec.datasets[0]}
    return {**chosen, **{name: source.name for name, source in named.items() if source}}


def send(job: Job, run: Run, line: dict[str, Any]) -> None:
    try:
        run.log({name: value for name, value in line.items() if name != "step"}, step=line["step"])
    except Exception as error:  # noqa: BLE001
        job.progress.on_metrics = lambda line: None
        warn(job, f"{type(error).__name__} while it trained")


def finish(job: Job, run: Run, exit_code: int) -> None:
    job.progress.on_metrics = lambda line: None
    try:
        if exit_code == EXIT_INTERRUPTED:
            # Shown as preempted there, not as failed; the next attempt goes on with it.
            run.mark_preempting()
        run.finish(exit_code=exit_code)
    except Exception as error:  # noqa: BLE001
        warn(job, f"{type(error).__name__} at the end")


def warn(job: Job, why: str) -> None:
    job.warn(f"nothing is logged to Weights & Biases: {why}")


def without_key(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text
