"""`python -m workers.training SPEC.json`: train one job.

Exit status: 0 the adapter and a result are in the object store; 1 it failed, and the result says why unless
the object store cannot be reached; 2 the settings or the specification cannot be read; 143 it was asked to
stop and is to be started again.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from controlplane.storage import ObjectStore, StorageUnavailable
from workers.runtimes.node_cache import StagingError
from workers.runtimes.node_settings import node_settings
from workers.training.config import JobSpec, read_spec
from workers.training.errors import (
    EXIT_INTERRUPTED,
    EXIT_OUTAGE,
    Interrupted,
    TrainingFailure,
    describe_failure,
)
from workers.training.job import Job
from workers.training.libraries import load_recipe, prepare_libraries
from workers.training.outcome.plot import draw_plot
from workers.training.outcome.result import Report, failure_result, success_result, write_result
from workers.training.running.progress import ProgressReport
from workers.training.running.ranks import Rank, end_with_parent, started_ranks, trainer_argv, write_failure
from workers.training.running.stop import StopRequest
from workers.training.running.tracking import KEY_VARIABLE

log = logging.getLogger("workers.training")


def main(argv: list[str]) -> int:
    # First of all: nothing that this process starts is to have it.
    wandb_key = os.environ.pop(KEY_VARIABLE, "")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for chatty in ("accelerate", "bitsandbytes", "httpx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    if len(argv) != 1:
        return _refuse("usage: python -m workers.training SPEC.json")
    path = Path(argv[0]).absolute()
    try:
        settings = node_settings()
    except ValidationError as error:
        names = ", ".join("HEARTH_" + str(problem["loc"][0]).upper() for problem in error.errors())
        return _refuse(f"the settings {names} are missing or wrong")
    store = ObjectStore.from_settings(settings)
    try:
        spec = read_spec(path)
    except OSError as error:
        return _refuse(f"the specification cannot be read: {error}")
    except TrainingFailure as failure:
        return _refuse_specification(store, path, failure)
    if spec.processes > 1 and not Rank.is_told(os.environ):
        return train_together(spec, store, path, wandb_key)
    return train(spec, store, settings.data_dir.absolute() / "cache", path.parent / "work", wandb_key)


def train_together(spec: JobSpec, store: ObjectStore, path: Path, wandb_key: str) -> int:
    """Have several processes train the job; returns the exit status. Ends as one of them that was killed."""
    secrets = {KEY_VARIABLE: wandb_key}
    with started_ranks(trainer_argv(path), spec.processes, path.parent, secrets) as ranks:
        ended = ranks.wait()
    if ended.result:
        write_result(store, spec.output_prefix, ended.result)
    if ended.status < 0:
        killer = signal.Signals(-ended.status)
        log.error("process %d of %d was killed by %s", ended.rank + 1, spec.processes, killer.name)
        logging.shutdown()
        if killer not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(killer, signal.SIG_DFL)
        os.kill(os.getpid(), killer)
    return ended.status


def train(spec: JobSpec, store: ObjectStore, cache_dir: Path, work_dir: Path, wandb_key: str) -> int:
    """Train the job, as one of its processes; returns the exit status. Raises Interrupted.

    The first writes the result. Of several processes, one that fails leaves its result to their parent.
    """
    rank = Rank.of(os.environ)
    if not rank.is_alone:
        end_with_parent()
    stop = StopRequest()
    if rank.is_first:
        stop.listen()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # The first tells it when to stop.
        logging.getLogger().setLevel(logging.WARNING)  # And says what there is to say.
    report = Report()
    draw = partial(draw_plot, title=spec.job_name, settings_dir=cache_dir / "matplotlib")
    progress = ProgressReport(store, spec.output_prefix, draw=draw)
    with progress if rank.is_first else nullcontext():
        prepare_libraries(spec, work_dir)
        try:
            # Only now: importing takes seconds, and the progress is to be seen from the start.
            fine_tune = load_recipe(spec.kind)
            job = Job(spec, store, progress, stop, report, cache_dir, work_dir, wandb_key)
            metrics = fine_tune(job)
            result, status = success_result(metrics, report), 0
        except Exception as error:
            log.exception("the job failed")
            if _is_outage(error):
                return EXIT_OUTAGE
            result, status = failure_result(describe_failure(error), report), 1
    if status and not rank.is_alone:
        write_failure(work_dir.parent, rank.number, result)
    elif rank.is_first:
        write_result(store, spec.output_prefix, result)
    return status


def _is_outage(error: Exception) -> bool:
    """Not the job's fault: it is to be tried again, so there is no result."""
    if isinstance(error, StagingError):
        return error.code == "UNAVAILABLE"
    return isinstance(error, StorageUnavailable)


def _refuse_specification(store: ObjectStore, path: Path, failure: TrainingFailure) -> int:
    """A bad specification is a result too, if it tells at least where results go."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        prefix = str(document["output_prefix"])
    except (ValueError, KeyError, TypeError):
        return _refuse(failure.message)
    write_result(store, prefix, failure_result(describe_failure(failure), Report()))
    return _refuse(failure.message, status=1)


def _refuse(message: str, status: int = 2) -> int:
    sys.stderr.write(f"workers.training: {message}\n")
    return status


def end(status: int) -> NoReturn:
    """End this process. Python's own way takes a million objects of the libraries apart first, for 1.5 s."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # What there was to do is done.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except Interrupted:
        status = EXIT_INTERRUPTED
    end(status)
