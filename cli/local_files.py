"""Files on this machine that are about to be uploaded, looked at before anything is sent."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import CliError

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class LocalFile:
    """A file to upload, under the name it gets on the server."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model, and what was left out and why."""

    files: list[LocalFile]
    skipped: list[str]
    adapter: Mapping[str, Any] | None  # adapter_config.json of a LoRA adapter


def read_model_folder(folder: Path) -> ModelFolder:
    """The files of a model folder; a CliError when it cannot be one."""
    if not folder.is_dir():
        what = "is a file; a model is a folder of files" if folder.exists() else "does not exist"
        raise CliError(f"{folder} {what}", advice=["firectl create model ID FOLDER"])
    files: list[LocalFile] = []
    skipped: list[str] = []
    for path in sorted(folder.iterdir()):
        reason = _reason_to_skip(path)
        if reason:
            skipped.append(f"{path.name}: {reason}")
        else:
            _refuse_outside(path, folder)
            files.append(LocalFile(path.name, path, path.stat().st_size))
    names = {file.name for file in files}
    if not names:
        raise CliError(f"{folder} holds no files to upload", details=skipped)
    _require_model_files(folder, files)
    adapter = _read_json(folder / "adapter_config.json") if "adapter_config.json" in names else None
    return ModelFolder(files, skipped, adapter)


def read_dataset(path: Path) -> tuple[LocalFile, int]:
    """A dataset's file and how many examples (lines that are not blank) it holds."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise CliError(f"{path} {what}; a dataset is one JSONL file")
    count = 0
    with path.open("rb") as stream:
        for line in stream:
            count += not line.isspace()
    if not count:
        raise CliError(f"{path} is empty; a dataset holds one JSON object on each line")
    return LocalFile(_dataset_file_name(path), path, path.stat().st_size), count


def id_from_path(path: Path) -> str:
    """A resource id made of a file's name."""
    found = re.sub(r"[^a-z0-9]+", "-", path.name.partition(".")[0].lower()).strip("-")[:63].strip("-")
    if not found:
        raise CliError(
            f"no id can be made of the name {path.name}", advice=["firectl create dataset ID PATH"]
        )
    return found


def _dataset_file_name(path: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "dataset"
    return f"{stem}.jsonl"


def _reason_to_skip(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "a folder; the files of a model stand beside each other"
    if path.suffix == ".py":
        return "code; models that need code of their own are not run"
    return ""


def _refuse_outside(path: Path, folder: Path) -> None:
    target = path.resolve()
    if path.is_symlink() and not target.is_relative_to(folder.resolve()):
        raise CliError(
            f"{path.name} is a link to {target}, outside of {folder}",
            advice=[f"copy the folder with its links resolved: cp -rL {folder} COPY, then upload COPY"],
        )
    if not target.is_file():
        raise CliError(f"{path} is neither a file nor a link to one")


def _require_model_files(folder: Path, files: list[LocalFile]) -> None:
    names = {file.name for file in files}
    if not names & {"config.json", "adapter_config.json"}:
        raise CliError(
            f"{folder} holds neither config.json (a base model) nor adapter_config.json (a LoRA adapter)",
            details=[f"it holds {', '.join(sorted(names)[:8])}"],
        )
    if not any(name.endswith(_WEIGHTS) for name in names):
        raise CliError(f"{folder} holds no weights (*.safetensors or *.bin)")
    empty = next((file.name for file in files if not file.size and file.name.endswith(_WEIGHTS)), None)
    if empty:
        raise CliError(f"{folder / empty} is empty; was its download cut short?")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CliError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise CliError(f"{path} does not hold a JSON object")
    return found
