"""Checkpoints in the object store: uploaded whole, verified before they are trusted, the last two kept.

checkpoints/checkpoint-<step>/<file>, and last of all its manifest.json {"files": {name: {"size", "sha256"}}}.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from controlplane.storage import ObjectNotFound, ObjectStore
from workers.training.model.footprint import Way

log = logging.getLogger(__name__)

KEPT = 2
MANIFEST = "manifest.json"
STATE_FILE = "hearth_state.json"
METRICS_FILE = "metrics.jsonl"
BEST_ADAPTER = "best_adapter_model.safetensors"
CHECKPOINT_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "scaler.pt",
    "trainer_state.json",
    STATE_FILE,
    METRICS_FILE,
    BEST_ADAPTER,
    "fireworks.json",
    "README.md",
)
"""What resuming reads, and a model made of it. The rest is the base model's or of no use."""
RANDOM_STATES = "rng_state_*.pth"
"""Of a job of several processes, where each has its own."""
NEEDED = frozenset({"adapter_model.safetensors", "optimizer.pt", STATE_FILE})
CHECKPOINT_MANIFEST = re.compile(r"checkpoint-(\d{1,12})/manifest\.json")
UPLOADED_FOLDER = re.compile(r"adapter/|(?:checkpoints/checkpoint|samplers/sampler)-\d{1,12}/")
FILE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class FileFacts(BaseModel):
    size: int
    sha256: str


class Manifest(BaseModel):
    files: dict[str, FileFacts]


def upload_folder(store: ObjectStore, prefix: str, folder: Path, names: Sequence[str]) -> None:
    """Upload files of a folder under `prefix`, their manifest last: what has one is whole."""
    files = {}
    for name in names:
        path = folder / name
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = FileFacts(size=path.stat().st_size, sha256=digest)
        store.put_file(prefix + name, path)
    store.put_bytes(prefix + MANIFEST, Manifest(files=files).model_dump_json().encode())


def upload_checkpoint(store: ObjectStore, prefix: str, folder: Path, step: int) -> None:
    """Upload a checkpoint of the job at `prefix`, then delete all but the last two."""
    names = [name for name in CHECKPOINT_FILES if (folder / name).exists()]
    names += sorted(path.name for path in folder.glob(RANDOM_STATES))
    upload_folder(store, f"{prefix}checkpoints/checkpoint-{step}/", folder, names)
    for old in list_checkpoints(store, prefix)[KEPT:]:
        delete_checkpoint(store, prefix, old)


def list_checkpoints(store: ObjectStore, prefix: str) -> list[int]:
    """The steps of the checkpoints that have a manifest, newest first."""
    root = prefix + "checkpoints/"
    found = (CHECKPOINT_MANIFEST.fullmatch(info.key.removeprefix(root)) for info in store.list(root))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def delete_checkpoint(store: ObjectStore, prefix: str, step: int) -> None:
    """The manifest goes first: half a checkpoint is none."""
    store.delete(f"{prefix}checkpoints/checkpoint-{step}/{MANIFEST}")
    store.delete_prefix(f"{prefix}checkpoints/checkpoint-{step}/")


def drop_unfinished(store: ObjectStore, prefix: str) -> None:
    """Delete what a trainer that was stopped had not uploaded to its end: folders without a manifest."""
    found = {info.key.removeprefix(prefix) for info in store.list(prefix)}
    folders = {match[0] for match in map(UPLOADED_FOLDER.match, found) if match}
    for folder in sorted(folders):
        if folder + MANIFEST not in found:
            store.delete_prefix(prefix + folder)
    for upload in list(store.parts.unfinished(prefix)):
        store.parts.abort(upload.key, upload.upload_id)


def restore_newest(store: ObjectStore, prefix: str, target: Path) -> tuple[Path, int] | None:
    """Download the newest checkpoint that is whole into `target`; None where there is none.

    Returns its folder and its step. Damaged ones and halves are deleted: training past them starts clean.
    """
    drop_unfinished(store, prefix)
    for step in list_checkpoints(store, prefix):
        folder = target / f"checkpoint-{step}"
        problem = _download_verified(store, f"{prefix}checkpoints/checkpoint-{step}/", folder)
        if problem is None:
            return folder, step
        log.warning("checkpoint-%d is damaged (%s); trying the one before", step, problem)
        shutil.rmtree(folder, ignore_errors=True)
        delete_checkpoint(store, prefix, step)
    return None


def _download_verified(store: ObjectStore, prefix: str, folder: Path) -> str | None:
    """Download what the manifest lists; returns what is wrong with it, if anything."""
    try:
        manifest = Manifest.model_validate_json(store.get_bytes(prefix + MANIFEST))
    except ObjectNotFound:
        return "its manifest is gone"
    except ValidationError:
        return "its manifest cannot be read"
    if missing := NEEDED - manifest.files.keys():
        return f"its manifest lacks {', '.join(sorted(missing))}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, facts in manifest.files.items():
        if not FILE_NAME.fullmatch(name) or name.startswith("."):
            return f"its manifest names {name!r}"
        try:
            size, digest = _download(store.open_stream(prefix + name), folder / name)
        except ObjectNotFound:
            return f"{name} is missing"
        if (size, digest) != (facts.size, facts.sha256):
            return f"{name} does not match the manifest"
    return None


def _download(chunks: Iterator[bytes], path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as out:
        for chunk in chunks:
            size += len(chunk)
            digest.update(chunk)
            out.write(chunk)
    return size, digest.hexdigest()


class JobState(BaseModel):
    """What of the job's own state goes with a checkpoint, beside the trainer's."""

    tokens_seen: int = 0
    evaluated_step: int = 0
    """The last step at which the held-out rows were evaluated."""
    best_loss: float | None = None
    best_step: int = 0
    worse_in_a_row: int = 0
    before: dict[str, Any] = {}
    """What the evaluation found before the first step."""
    way: Way | None = None
    """How the rows go through the model; None in checkpoints of earlier versions."""

    @classmethod
    def read(cls, folder: Path | None) -> JobState:
        """The state in a checkpoint's folder; a fresh one without a checkpoint."""
        if folder is None:
            return cls()
        return cls.model_validate_json((folder / STATE_FILE).read_bytes())

    def write(self, folder: Path) -> None:
        (folder / STATE_FILE).write_text(self.model_dump_json())
