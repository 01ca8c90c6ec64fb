"""What the containers of an engine's pod run.

    python -m workers.runtimes.kubernetes.pod stage SPEC.json    # brings the weights to the node's cache
    python -m workers.runtimes.kubernetes.pod serve SPEC.json    # becomes vLLM, over weights that are there
    python -m workers.runtimes.kubernetes.pod addons SPEC.json   # brings addons when a worker asks for them

Only the containers that bring something can reach the object store. A failure before vLLM takes over is one
line on stderr and exit status 1, as in `engine`.
"""

from __future__ import annotations

import hmac
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from controlplane.storage import ObjectStore
from workers.runtimes.base import Endpoint, EngineUnreachable, ModelSource
from workers.runtimes.cache_uses import Keeper, end_uses, hold, limit_of, note_use
from workers.runtimes.client import EngineClient
from workers.runtimes.engine import refuse, render, stage, staged_folders, staged_path
from workers.runtimes.node_cache import StagingError, is_whole, stage_adapter
from workers.runtimes.node_settings import node_settings
from workers.runtimes.vllm import ENGINE_SPEC, EngineSpec, UnsupportedPrecision

ADDRESS_VARIABLE = "HEARTH_POD_IP"
ADDON_PORT_OFFSET = 1
"""The stager listens on the port after the engine's."""
BODY_LIMIT = 1 << 20
WEIGHTS_LOST = "WEIGHTS_LOST"
SIGNALLED = 128
"""Exit codes above it stand for a signal."""
SOURCE = TypeAdapter(ModelSource)


def main() -> None:
    task, file = sys.argv[1:]
    # It is the container's first process, and those take no notice of a signal unless they say that they do.
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(SIGNALLED + number))
    spec = ENGINE_SPEC.validate_json(Path(file).read_bytes())
    try:
        TASKS[task](spec)
    except StagingError as error:
        refuse(error.code, error.reason, error.message, error.retryable)
    except UnsupportedPrecision as error:
        refuse("INVALID_ARGUMENT", "UNSUPPORTED_PRECISION", str(error), False)


def serve(spec: EngineSpec) -> NoReturn:
    """On the pod's own address."""
    sources, address = spec.replica.sources, os.environ[ADDRESS_VARIABLE]
    end_uses(spec.cache_dir, address, but=())  # those of an engine that was here before
    for folder in staged_folders(spec):
        note_use(spec.cache_dir, folder, address)
    hold(spec.cache_dir, address)
    if not all(is_whole(staged_path(spec, source), source.files) for source in sources):
        said = "the weights are not in the node's cache any more: another pod brings them anew"
        raise StagingError("UNAVAILABLE", WEIGHTS_LOST, said, retryable=True)
    here = replace(spec, replica=replace(spec.replica, host=address))
    argv, env = render(here, Path.cwd())
    os.execve(argv[0], argv, env)


def bring_addons(spec: EngineSpec) -> None:
    """POST /stage with a model's source answers {"path"}, or the staging's error."""
    settings = node_settings()
    store, key = ObjectStore.from_settings(settings), addon_key(settings.s3_secret_key.get_secret_value())

    class Asked(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {key}"):
                return self._answer(HTTPStatus.UNAUTHORIZED, {"message": "another key is needed"})
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/stage" or not 0 < length <= BODY_LIMIT:
                return self._answer(HTTPStatus.BAD_REQUEST, {"message": "POST a model's source to /stage"})
            return self._answer(*bring(store, spec, self.rfile.read(length)))

        def do_GET(self) -> None:
            self._answer(HTTPStatus.OK, {})

        def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            said = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are the worker's to log."""

    address = os.environ[ADDRESS_VARIABLE], spec.replica.port + ADDON_PORT_OFFSET
    ThreadingHTTPServer(address, Asked).serve_forever()


def bring(store: ObjectStore, spec: EngineSpec, asked: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
    """(status, body): the addon's folder, or why it cannot be brought."""
    keeper = keeper_of_pod()
    try:
        source = SOURCE.validate_json(asked)
        end_old_uses(spec, keeper)
        path = stage_adapter(store, source.prefix, source.files, spec.cache_dir, source.uid, keeper)
    except ValidationError as error:
        return HTTPStatus.BAD_REQUEST, {"message": f"this is no model's source: {error.error_count()} errors"}
    except StagingError as error:
        said = {"code": error.code, "reason": error.reason, "message": error.message}
        return HTTPStatus.CONFLICT, {**said, "retryable": error.retryable}
    return HTTPStatus.OK, {"path": str(path)}


def end_old_uses(spec: EngineSpec, keeper: Keeper) -> None:
    """Addons that the engine has unloaded may make way for others."""
    engine = Endpoint(os.environ[ADDRESS_VARIABLE], spec.replica.port)
    with suppress(EngineUnreachable), EngineClient(engine.url) as client:
        end_uses(spec.cache_dir, keeper.holder, but=staged_folders(spec) | client.adapter_folders())


def keeper_of_pod() -> Keeper:
    """What any of the pod's containers brings is its engine's."""
    return Keeper(os.environ[ADDRESS_VARIABLE], limit_of(os.environ))


def addon_key(store_secret: str) -> str:
    """What a worker shows to the stager: made of what both have, and good for nothing else."""
    return hmac.digest(store_secret.encode(), b"hearth addon stager", "sha256").hex()


TASKS = {"stage": lambda spec: stage(spec, keeper_of_pod()), "serve": serve, "addons": bring_addons}

if __name__ == "__main__":
    main()
