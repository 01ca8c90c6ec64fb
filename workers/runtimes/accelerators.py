"""The GPUs of this node, and which of them are taken."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from workers.runtimes.base import NeverFits, NoCapacity
from workers.runtimes.process import ProcessState, observe_process

GPUS_VARIABLE = "HEARTH_LOCAL_GPUS"
RECORD = "accelerators.json"
NVIDIA_SMI_SECONDS = 20


def list_accelerators(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Indices or UUIDs from HEARTH_LOCAL_GPUS (comma-separated; empty means none), else from nvidia-smi."""
    named = environ.get(GPUS_VARIABLE)
    if named is None and shutil.which("nvidia-smi"):
        named = _ask_nvidia_smi()
    return tuple(part.strip() for part in (named or "").split(",") if part.strip())


def assign_accelerators(
    directory: Path, wanted: int, known: tuple[str, ...], run_dirs: Iterable[Path]
) -> tuple[str, ...]:
    """Choose `wanted` GPUs that no live process holds, and write down that they are this directory's.

    Nothing on a node without GPUs. The caller holds the node's lock. Raises NoCapacity.
    """
    if not known:
        return ()
    if wanted > len(known):
        raise NeverFits(f"no capacity: {wanted} GPUs are needed, and the node has {len(known)}")
    taken = {gpu for other in run_dirs if other != directory for gpu in _held_by(other)}
    free = [gpu for gpu in known if gpu not in taken]
    if len(free) < wanted:
        raise NoCapacity(
            f"no capacity: {wanted} of the node's {len(known)} GPUs are needed and {len(free)} are free"
        )
    chosen = tuple(free[:wanted])
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    (directory / RECORD).write_text(json.dumps(chosen))
    return chosen


def held_accelerators(known: tuple[str, ...], run_dirs: Iterable[Path]) -> int:
    """How many of them live processes hold."""
    return len(set(known) & {gpu for directory in run_dirs for gpu in _held_by(directory)})


def _held_by(directory: Path) -> tuple[str, ...]:
    if observe_process(directory).state is not ProcessState.RUNNING:
        return ()
    try:
        return tuple(json.loads((directory / RECORD).read_text()))
    except (OSError, ValueError):
        return ()


def _ask_nvidia_smi() -> str:
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ",".join(answer.stdout.split())
