"""Files on this machine that are about to be uploaded, looked at before anything is sent."""

import errno
import fnmatch
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import CliError

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_JUNK = (
    *("__pycache__", "*.pyc", "*.pyo", "*.lock", "*.tmp", "*.part", "*.incomplete"),
    *("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "$recycle.bin", "__macosx", "lost+found"),
    *("*~", "#*#", "*.swp", "*.swo", "*.bak", "*.orig"),
)
"""Besides what is hidden; in lower case."""
_SHOWN = 5
_POOLING = re.compile("[0-9]_Pooling")


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
    """The files of a model folder, links followed; a CliError when it cannot be one."""
    if not folder.is_dir():
        what = "is a file; a model is a folder of files" if folder.exists() else "does not exist"
        raise CliError(f"{folder} {what}", advice=["firectl create model ID FOLDER"])
    files: list[LocalFile] = []
    skipped: dict[str, list[str]] = {}
    for path in _entries(folder):
        size = None if _is_junk(path.name) else _size(path)
        reason = _reason_to_skip(path, size)
        if reason:
            skipped.setdefault(reason, []).append(path.name)
        else:
            files.append(LocalFile(path.relative_to(folder).as_posix(), path, size or 0))
    told = [f"{_listed(names)}: {reason}" for reason, names in skipped.items()]
    if not files:
        raise CliError(f"{folder} holds no files to upload", details=told)
    _require_model_files(folder, files)
    has_adapter = any(file.name == "adapter_config.json" for file in files)
    return ModelFolder(files, told, _read_json(folder / "adapter_config.json") if has_adapter else None)


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


def _entries(folder: Path) -> list[Path]:
    """What stands in the folder, and the one file of an embedding model that has a folder of its own."""
    try:
        return [
            pooling if (pooling := path / "config.json").is_file() and _POOLING.fullmatch(path.name) else path
            for path in sorted(folder.iterdir())
        ]
    except OSError as error:
        raise CliError(f"cannot read {folder}: {error.strerror}") from None


def _is_junk(name: str) -> bool:
    return name.startswith(".") or any(fnmatch.fnmatchcase(name.lower(), junk) for junk in _JUNK)


def _size(path: Path) -> int | None:
    """Bytes of a file, or of what a link leads to; None for a folder. What cannot be read is refused."""
    try:
        found = path.stat()
    except OSError as error:
        raise CliError(_unreachable(path, error)) from None
    if stat.S_ISDIR(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise CliError(f"{path} is neither a file nor a folder, but {_kind(found.st_mode)}")
    if not os.access(path, os.R_OK):
        raise CliError(f"cannot read {path}: Permission denied")
    return found.st_size


def _unreachable(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"{path} is a link that leads in a circle"
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which cannot be read: {error.strerror}"
    return f"cannot read {path}: {error.strerror}"


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _reason_to_skip(path: Path, size: int | None) -> str:
    if _is_junk(path.name):
        return "hidden, or left by other programs"
    if size is None:
        return "a folder; the files of a model stand beside each other"
    if path.suffix == ".py":
        return "code; models that need code of their own are not run"
    return "" if size or path.suffix in _WEIGHTS else "empty"


def _listed(names: list[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


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
