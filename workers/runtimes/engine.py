"""The engine's process: bring the weights to the node, then become vLLM.

    python -m workers.runtimes.engine SPEC.json

It runs in the replica's directory. A failure before vLLM takes over is one line on stderr,
`HEARTH-ENGINE-ERROR {"code", "reason", "message", "retryable"}`, and exit status 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from controlplane.storage import ObjectStore
from workers.runtimes.base import EnginePhase, ModelSource
from workers.runtimes.cache_uses import Keeper, keeper_here
from workers.runtimes.engine_failure import ERROR_MARK
from workers.runtimes.node_cache import StagingError, model_folder, stage_model
from workers.runtimes.node_settings import node_settings
from workers.runtimes.vllm import ENGINE_SPEC, PHASE_FILE, EngineSpec, UnsupportedPrecision, engine_command


def main() -> NoReturn:
    directory = Path.cwd()
    spec = ENGINE_SPEC.validate_json(Path(sys.argv[1]).read_bytes())
    (directory / PHASE_FILE).write_text(EnginePhase.STAGING)
    try:
        argv, env = prepare(spec, directory)
    except StagingError as error:
        refuse(error.code, error.reason, error.message, error.retryable)
    except UnsupportedPrecision as error:
        refuse("INVALID_ARGUMENT", "UNSUPPORTED_PRECISION", str(error), False)
    (directory / PHASE_FILE).write_text(EnginePhase.LOADING)
    os.execve(argv[0], argv, env)


def prepare(spec: EngineSpec, directory: Path) -> tuple[list[str], dict[str, str]]:
    """Stage the weights and write the files that the command line names."""
    # The command first: a refusal must not wait for a download.
    argv, env = render(spec, directory)
    stage(spec, keeper_here(spec.cache_dir, os.environ, spec.replica.replica_uid))
    return argv, env


def render(spec: EngineSpec, directory: Path) -> tuple[list[str], dict[str, str]]:
    """The command and its environment, over weights that are staged or are about to be."""
    (directory / "tmp").mkdir(exist_ok=True)
    template = None
    if spec.replica.chat_template is not None:
        template = directory / "chat_template.jinja"
        template.write_text(spec.replica.chat_template)
    model, draft = spec.replica.model, spec.replica.draft
    draft_path = staged_path(spec, draft) if draft else None
    return engine_command(spec, staged_path(spec, model), template, os.environ, draft_path)


def stage(spec: EngineSpec, keeper: Keeper) -> None:
    """Raises StagingError."""
    store = ObjectStore.from_settings(node_settings())
    for source in spec.replica.sources:
        staged = stage_model(store, source.prefix, source.files, spec.cache_dir, source.uid, keeper)
        if staged != staged_path(spec, source):
            raise AssertionError(f"staged to {staged} instead of {staged_path(spec, source)}")


def staged_path(spec: EngineSpec, source: ModelSource) -> Path:
    return model_folder(spec.cache_dir, source.uid, source.files)


def staged_folders(spec: EngineSpec) -> frozenset[str]:
    """The names of the folders that the engine serves from."""
    return frozenset(staged_path(spec, source).name for source in spec.replica.sources)


def refuse(code: str, reason: str, message: str, retryable: bool) -> NoReturn:
    said = {"code": code, "reason": reason, "message": message, "retryable": retryable}
    sys.stderr.write(f"{ERROR_MARK}{json.dumps(said)}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
