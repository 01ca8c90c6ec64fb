"""What a model is made of: a folder whose own files say what kind of model it holds."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.connection.session import Session
from cli.errors import CliError
from cli.transfer.local_files import ModelFolder

_MODEL_NAME = re.compile(r"accounts/[\w.-]+/models/[\w.-]+")
_TOOLS = {"s3": "aws s3 cp", "gs": "gcloud storage cp", "https": "azcopy copy"}
_FIREWORKS_FILE = "fireworks.json"


def refuse_elsewhere(source: str, instead: str) -> None:
    """Refuses a place in somebody's object storage. `instead` ends with what is to be uploaded from here."""
    place = urlsplit(source)
    if not place.scheme or not place.netloc:
        return
    advice = [f"download it first, then: {instead}"]
    if place.scheme in _TOOLS:
        target = instead.rpartition(" ")[2]
        whole = " --recursive" if target == "FOLDER" else ""
        advice.insert(0, f"{_TOOLS[place.scheme]}{whole} {source} {target}")
    raise CliError(f"{source}: nothing is fetched from other places, only uploaded from here", advice=advice)


def kind_fields(
    session: Session, path: Path, folder: ModelFolder, base_model: str | None, embedding: bool
) -> dict[str, Any]:
    """What the folder's own files say about the kind of the model."""
    if folder.adapter is not None:
        return _adapter_fields(session, path, folder.adapter, base_model)
    if base_model is not None:
        raise CliError(
            "--base-model is for LoRA adapters, and the folder holds no adapter_config.json",
            advice=["leave --base-model out to upload a base model"],
        )
    return {"kind": "EMBEDDING_MODEL" if embedding else "HF_BASE_MODEL"}


def _adapter_fields(
    session: Session, path: Path, adapter: Mapping[str, Any], base_model: str | None
) -> dict[str, Any]:
    base = base_model or _named_base(session, path, adapter)
    if base is None:
        of = adapter.get("base_model_name_or_path")
        raise CliError(
            "the folder holds a LoRA adapter" + (f" of {of}" if of else ""),
            advice=["name its base model on this server: --base-model accounts/ACCOUNT/models/MODEL"],
        )
    targets, rank = adapter.get("target_modules"), adapter.get("r")
    if not isinstance(rank, int) or not targets:
        raise CliError("adapter_config.json lacks r or target_modules; is it a LoRA adapter?")
    modules = [targets] if isinstance(targets, str) else list(targets)
    details = {"baseModel": base, "r": rank, "targetModules": modules}
    return {"kind": "HF_PEFT_ADDON", "peftDetails": details}


def _named_base(session: Session, path: Path, adapter: Mapping[str, Any]) -> str | None:
    """The base model that the adapter's own files name the way that this server names models."""
    stated = _read_fireworks(path / _FIREWORKS_FILE)
    places = (
        (_FIREWORKS_FILE, stated.get("base_model") or stated.get("baseModel")),
        ("adapter_config.json", adapter.get("base_model_name_or_path")),
    )
    for file, named in places:
        if isinstance(named, str) and _MODEL_NAME.fullmatch(named):
            session.output.note(f"Its base model is {named}, says {file}")
            return named
    return None


def _read_fireworks(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CliError(f"{path} is not JSON: {error}") from None
    return found if isinstance(found, Mapping) else {}
