"""What stands between callers and the engine: Hearth's gateway with all it needs, and published routers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import Engine, answers
from benchmarks.load import Asked
from benchmarks.machine import running
from benchmarks.tools import Tools
from controlplane.bootstrap import bootstrap, create_key, ensure_account, ensure_user
from controlplane.config import Settings
from controlplane.db import Database, migrate
from controlplane.resources.tables import DeployedModelRow, DeploymentRow, ModelRow, ReplicaRow
from launcher.embedded import Services
from launcher.parts import gateway_argv
from launcher.ports import free_port
from launcher.program import Program, plain_environment

KINDS = ("whole", "stream")
LITELLM_KEY = "sk-0123456789abcdef0123456789abcdef"
"""It starts with a key of its own only; with no database it compares and nothing else."""
PLENTY = 10**12
QUOTAS = {f"serverless-inference-{each}": PLENTY for each in ("rpm", "prompt-tpm", "generated-tpm")}
PRICES = {"tokens": {"default": {"prompt": "0.2", "completion": "0.6"}}}
QUESTION = [{"role": "user", "content": "Say something short about a fox."}]


@dataclass(frozen=True)
class Contestant:
    """Something that answers as the engine does, by the kinds of answers that it gives."""

    name: str
    pids: tuple[int, ...]
    asked: dict[str, Asked]


def asked_of(url: str, model: str, *, stream: bool, key: str = "") -> Asked:
    body = {"model": model, "messages": QUESTION, "max_tokens": 64}
    return Asked(f"{url}/v1/chat/completions", json.dumps(body | ({"stream": True} if stream else {})), key)


def on_ports(ports: dict[str, int]) -> dict[str, Asked]:
    return {
        kind: asked_of(f"http://127.0.0.1:{port}", "quick", stream=kind != "whole")
        for kind, port in ports.items()
    }


@contextmanager
def nothing(engine: Engine, pid: int) -> Iterator[Contestant]:
    yield Contestant("nothing", (pid,), on_ports(engine.ports))


@contextmanager
def vllm_router(tools: Tools, engine: Engine, folder: Path) -> Iterator[Contestant]:
    """One router for each of the engine's kinds of answers: it knows a worker by its port."""
    ports = {kind: free_port() for kind in KINDS}
    programs = [_router(tools, engine.ports[kind], port, folder) for kind, port in ports.items()]
    with running(programs) as pids:
        yield Contestant("vllm-router", tuple(pids), on_ports(ports))


def _router(tools: Tools, worker: int, port: int, folder: Path) -> Program:
    options = ["--port", str(port), "--prometheus-port", str(free_port())]
    workers = ["--worker-urls", f"http://127.0.0.1:{worker}", "--policy", "round_robin"]
    return Program(
        "vllm-router",
        (str(tools.router), "--host", "127.0.0.1", *options, *workers, "--log-level", "warning"),
        plain_environment(),
        folder,
        folder / f"router-{port}.log",
        lambda _: answers(port, "/health", 200),
    )


@contextmanager
def litellm(tools: Tools, engine: Engine, folder: Path) -> Iterator[Contestant]:
    port = free_port()
    models = [
        {
            "model_name": kind,
            "litellm_params": {
                "model": "openai/quick",
                "api_base": f"http://127.0.0.1:{engine.ports[kind]}/v1",
                "api_key": "none",
            },
        }
        for kind in KINDS
    ]
    configuration = folder / "litellm.json"
    configuration.write_text(json.dumps({"model_list": models}))
    options = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False")
    program = Program(
        "litellm",
        (str(tools.litellm), "--config", str(configuration), *options),
        {**plain_environment(), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": LITELLM_KEY},
        folder,
        folder / "litellm.log",
        lambda _: answers(port, "/health/liveliness", 200),
    )
    with running([program]) as pids:
        url = f"http://127.0.0.1:{port}"
        asked = {kind: asked_of(url, kind, stream=kind != "whole", key=LITELLM_KEY) for kind in KINDS}
        yield Contestant("litellm", tuple(pids), asked)


@contextmanager
def hearth(engine: Engine, folder: Path) -> Iterator[Contestant]:
    """One gateway process whose caller's key is looked up, whose requests are counted, priced and metered."""
    services = Services.of(folder)
    wanted = [services.valkey.program(folder / "valkey.log"), services.postgres.program(folder / "pg.log")]
    with running(wanted):
        os.environ.update(_settings(services, folder))
        settings = Settings()
        migrate(settings.database_url)
        key = _fill(settings, engine)
        port = settings.gateway_port
        program = Program(
            "gateway",
            gateway_argv(settings),
            dict(os.environ),
            Path.cwd(),
            folder / "gateway.log",
            lambda _: answers(port, "/readyz", 200),
        )
        with running([program]) as pids:
            url = f"http://127.0.0.1:{port}"
            asked = {
                kind: asked_of(url, _model(kind), stream=kind != "whole", key=key) for kind in engine.ports
            }
            yield Contestant("hearth", tuple(pids), asked)


def _settings(services: Services, folder: Path) -> dict[str, str]:
    return {
        **services.environment(),
        "HEARTH_DATA_DIR": str(folder / "data"),
        "HEARTH_GATEWAY_PORT": str(free_port()),
        "HEARTH_QUOTAS": json.dumps(QUOTAS),
        "HEARTH_PRICES": json.dumps(PRICES),
    }


def _model(kind: str) -> str:
    return f"accounts/fireworks/models/{kind}"


def _fill(settings: Settings, engine: Engine) -> str:
    """Public models of the platform's account, one for each kind; the key of a caller of another account."""
    bootstrap(settings, with_key=False)
    database = Database(settings.database_url, pool_size=1)
    with database.session() as session:
        ensure_account(session, "caller", "caller@localhost")
        user = ensure_user(session, "caller", "someone", "caller@localhost", "user")
        key = create_key(session, user, "benchmark")
        for kind, port in engine.ports.items():
            model = ModelRow(**_row(settings, kind), kind="HF_BASE_MODEL", public=True, **_chat())
            session.add(model)
            session.flush()
            deployment = DeploymentRow(**_row(settings, kind), base_model_uid=model.uid)
            session.add(deployment)
            session.flush()
            uids = {"model_uid": model.uid, "deployment_uid": deployment.uid}
            session.add(
                DeployedModelRow(**_row(settings, kind) | {"state": "DEPLOYED"}, default=True, **uids)
            )
            where = {"host": "127.0.0.1", "port": port, "served_name": "quick"}
            session.add(ReplicaRow(deployment_uid=deployment.uid, state="READY", **where))
    database.close()
    return key


def _row(settings: Settings, row_id: str) -> dict[str, str]:
    return {"account_id": settings.platform_account, "id": row_id, "state": "READY"}


def _chat() -> dict[str, object]:
    conversation = {"style": "jinja", "template": "{{ messages }}"}
    return {"context_length": 4096, "conversation_config": conversation}
