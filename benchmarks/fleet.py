"""What many settled deployments cost, and how soon a change of one is acted on: `python -m benchmarks.fleet`.

Starts a real Kubernetes control plane, PostgreSQL, Valkey and object store of its own, an api, workers and
beat as they are installed, and stops them all. Nodes and engines are hollow (`hollow.py`); deployments are
put into the database as the api leaves them. The API server's audit log says who asked for what.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import func

from benchmarks.hollow import hollow_nodes
from benchmarks.machine import cpu_seconds, percentile, running
from benchmarks.rest import answers, line
from controlplane.bootstrap import bootstrap, ensure_account
from controlplane.config import Settings
from controlplane.db import Database, migrate
from controlplane.resources.tables import DeploymentRow, ModelRow
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from launcher.parts import api_argv, beat_argv, worker_argv
from launcher.ports import free_port
from launcher.program import Program
from tests.kubernetes.cluster.control_plane import ControlPlane, build, control_plane
from tests.kubernetes.story import Kubectl
from workers.runtimes.kubernetes.cluster import DEPLOYMENT, FIELD_MANAGER, KINDS, Cluster, Document, Kind

REQUESTS_A_SECOND, ACTED_SECONDS = 1.0, 1.0
SETTLE_SECONDS = 900.0
QUIET_SECONDS = 5.0
LOOK_SECONDS = 0.02
POOL = {"hearth.dev/benchmark": "fleet"}
GPU = "NVIDIA_H100_80GB"
NODE_POOLS = {
    "image": "engine",
    "namespacePrefix": "fleet",
    "pools": [
        {
            "name": "h100",
            "acceleratorType": GPU,
            "resource": "nvidia.com/gpu",
            "memoryGiB": 80,
            "perNode": 8,
            "cpu": "1",
            "hostMemory": "1Gi",
            "nodeSelector": POOL,
        }
    ],
}
QUOTAS = {"h100-count": {"value": 100_000, "maxValue": 100_000}}
# Controllers with their usual limits would need ten minutes for the pods.
UNLIMITED = {"kube-api-qps": "500", "kube-api-burst": "1000"}
# On a busy machine hollow nodes may be late, and are not to be given up.
PATIENT = {"node-monitor-grace-period": "60s"}
CHANGES = ("create", "update", "patch", "delete")
WATCHED = ("deployments", "pods", "services", "poddisruptionbudgets", "networkpolicies", "namespaces")
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class Audit:
    """What the API server was asked for, by its audit log."""

    def __init__(self, log: Path) -> None:
        self._log, self._read = log, 0
        self._asked: dict[str, tuple[float, str]] = {}
        self._changed = 0.0

    def asked(self, since: float, until: float) -> Counter[str]:
        """Requests that Hearth began in that time, by verb and resource."""
        self._read_on()
        return Counter(what for moment, what in self._asked.values() if since <= moment < until)

    def last_change(self) -> float:
        """When anybody last changed anything that Hearth watches."""
        self._read_on()
        return self._changed

    def _read_on(self) -> None:
        with self._log.open("rb") as lines:
            lines.seek(self._read)
            for line in lines:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    self._note(json.loads(line))

    def _note(self, entry: Document) -> None:
        """A watch has an entry when it begins and another one when it ends."""
        resource = (entry.get("objectRef") or {}).get("resource", entry["requestURI"])
        begun = datetime.strptime(entry["requestReceivedTimestamp"], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
        if entry.get("userAgent", "").startswith(FIELD_MANAGER):
            self._asked[entry["auditID"]] = begun, f"{entry['verb']} {resource}"
        if entry["verb"] in CHANGES and resource in WATCHED:
            self._changed = max(self._changed, begun)


@dataclass(frozen=True)
class Fleet:
    settings: Settings
    key: str
    cluster: Cluster
    kubectl: Kubectl
    audit: Audit
    pids: Mapping[str, int]

    @property
    def database(self) -> str:
        return self.settings.database_url.replace("+psycopg", "", 1)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def scale(self, deployment_id: str, replicas: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.settings.api_port, timeout=60)
        path = f"/v1/accounts/hearth/deployments/{deployment_id}:scale"
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        client.request("PATCH", path, json.dumps({"replicaCount": replicas}), headers)
        answer = client.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {said.decode()}")


def main() -> None:
    options = read_options()
    with (
        tempfile.TemporaryDirectory(prefix="hearth-fleet-") as folder,
        started(Path(folder), options) as fleet,
    ):
        wait_until_settled(fleet, options)
        watch_at_rest(fleet, options.seconds)
        for what, act in ACTS.items():
            told = [act(fleet, number) for number in range(options.changes)]
            said, met = f"{percentile(told, 0.5):.2f}; {max(told):.2f} s", max(told) <= ACTED_SECONDS
            line(f"{what}: acted on after, p50; worst", said, f"<= {ACTED_SECONDS:g} s", met)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=1_000)
    parser.add_argument(
        "--serving", type=int, default=200, help="deployments with a replica; the rest has none"
    )
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="worker processes, as many as are installed")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the settled fleet is watched")
    parser.add_argument("--changes", type=int, default=10, help="changes of each kind")
    return parser.parse_args()


@contextmanager
def started(folder: Path, options: argparse.Namespace) -> Iterator[Fleet]:
    """Everything, with the deployments in the database and workers that have just begun."""
    services = Services.of(folder)
    counted = {"shared_preload_libraries": "pg_stat_statements"}
    services = replace(services, postgres=replace(services.postgres, options=counted))
    (folder / "audit.yaml").write_text(json.dumps(AUDIT))
    server = {"audit-policy-file": str(folder / "audit.yaml"), "audit-log-path": str(folder / "audit.log")}
    more = {
        "kube-apiserver": server,
        "kube-controller-manager": {**UNLIMITED, **PATIENT},
        "kube-scheduler": UNLIMITED,
    }
    with ExitStack() as stack:
        pids = stack.enter_context(running(services.programs(folder)))
        plane = stack.enter_context(control_plane(build(), more))
        environment = _environment(folder, services, plane)
        os.environ.update(environment)
        settings = Settings()
        migrate(settings.database_url)
        with psycopg.connect(settings.database_url.replace("+psycopg", "", 1)) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        ObjectStore.from_settings(settings).ensure_bucket()
        key = bootstrap(settings, with_key=True).key
        assert key is not None
        cluster = Cluster.of_context("", user_agent="benchmark")
        stack.callback(cluster.close)
        stack.enter_context(hollow_nodes(cluster, options.serving, POOL))
        insert(settings, options)
        parts = _parts(folder, settings, environment, options.workers)
        started_pids = stack.enter_context(running(parts))
        named = dict(zip((part.name for part in parts), started_pids, strict=True))
        named |= {"postgres": pids[-1], "kube-apiserver": plane.running["kube-apiserver"].pid}
        yield Fleet(settings, key, cluster, Kubectl(plane.kubeconfig), Audit(folder / "audit.log"), named)


def _environment(folder: Path, services: Services, plane: ControlPlane) -> dict[str, str]:
    return {
        **os.environ,
        **services.environment(),
        "KUBECONFIG": str(plane.kubeconfig),
        "HEARTH_DATA_DIR": str(folder / "data"),
        "HEARTH_API_PORT": str(free_port()),
        "HEARTH_NODE_POOLS": json.dumps(NODE_POOLS),
        "HEARTH_QUOTAS": json.dumps(QUOTAS),
    }


def _parts(folder: Path, settings: Settings, environment: dict[str, str], workers: int) -> list[Program]:
    def part(name: str, argv: tuple[str, ...], ready: Callable[[int], bool] = lambda pid: True) -> Program:
        return Program(name, argv, environment, Path.cwd(), folder / f"{name}.log", ready)

    names = [f"worker {number}" for number in range(1, workers + 1)]
    return [
        part("api", api_argv(settings), lambda pid: answers(settings)),
        *(part(name, worker_argv()) for name in names),
        part("beat", beat_argv()),
    ]


def insert(settings: Settings, options: argparse.Namespace) -> None:
    """As the api leaves what was just created. The first account is the caller's own."""
    accounts = ["hearth", *(f"team-{number}" for number in range(1, options.accounts))]
    database = Database(settings.database_url, pool_size=1)
    with database.session() as session:
        for account in accounts:
            ensure_account(session, account, f"{account}@example.org")
        base = ModelRow(account_id="hearth", id="base", kind="HF_BASE_MODEL", state="READY", **MODEL)
        session.add(base)
        session.flush()
        for number in range(options.deployments):
            serves = number < options.serving
            session.add(
                DeploymentRow(
                    account_id=accounts[number % len(accounts)],
                    id=f"d-{number:04}",
                    base_model_uid=base.uid,
                    state="CREATING",
                    next_reconcile_at=func.now(),
                    accelerator_type=GPU,
                    accelerator_count=1,
                    min_replica_count=int(serves),
                    desired_replica_count=int(serves),
                    max_replica_count=2,
                )
            )
    database.close()


MODEL: Mapping[str, Any] = {
    "files": {"model.safetensors": {"size": 16 * 1024**3, "sha256": "0" * 64}},
    "context_length": 8192,
    "facts": {
        "config": {
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "hidden_size": 4096,
        },
        "context_length": 8192,
    },
}
"""Of 8 billion parameters, as far as rows go."""


def wait_until_settled(fleet: Fleet, options: argparse.Namespace) -> None:
    """Every deployment is READY, and neither Hearth nor the cluster's controllers change anything more."""
    begin, deadline = time.time(), time.monotonic() + SETTLE_SECONDS
    while True:
        ready = fleet.query("SELECT count(*) FROM deployments WHERE state = 'READY'")[0][0]
        if ready == options.deployments and time.time() - fleet.audit.last_change() > QUIET_SECONDS:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"{ready} of {options.deployments} deployments are READY")
        time.sleep(1)
    took = fleet.audit.last_change() - begin
    line(f"{options.deployments} deployments, {options.serving} serving: settled after", f"{took:.0f} s")
    asked = fleet.audit.asked(0, time.time())
    line("  requests to the API server until then, for each", f"{asked.total() / options.deployments:.1f}")


def watch_at_rest(fleet: Fleet, seconds: float) -> None:
    fleet.query("SELECT pg_stat_statements_reset()")
    before, begin = {name: cpu_seconds(pid) for name, pid in fleet.pids.items()}, time.time()
    time.sleep(seconds)
    end = time.time()
    asked = fleet.audit.asked(begin, end)
    rate = asked.total() / (end - begin)
    said = ", ".join(f"{count} {what}" for what, count in asked.most_common(4))
    line("settled: requests to the API server a second", f"{rate:.2f}", "< 1", rate < REQUESTS_A_SECOND)
    line(f"  {said}", "")
    for name, pid in fleet.pids.items():
        share = (cpu_seconds(pid) - before[name]) / (end - begin)
        line(f"  processor time of {name}", f"{share * 100:.1f} %")
    calls = fleet.query("SELECT sum(calls)::int FROM pg_stat_statements")[0][0]
    line("  statements to PostgreSQL a second", f"{calls / (end - begin):.0f}")
    most = "SELECT calls::int, round(total_exec_time), left(query, 150) FROM pg_stat_statements"
    for count, spent, text in fleet.query(f"{most} ORDER BY calls DESC LIMIT 8"):
        line(f"    {' '.join(text.split())[:90]}", f"{count / (end - begin):.1f}/s", f"{spent} ms")


def after_scale(fleet: Fleet, number: int) -> float:
    """By a user, through the api, of a deployment at zero: its Deployment has a replica."""
    row = _resting(fleet, number)
    return _time(
        lambda: fleet.scale(row.id, 1), lambda: _find(fleet, DEPLOYMENT, row)["spec"]["replicas"] == 1
    )


def after_delete(fleet: Fleet, number: int) -> float:
    """Its Service is taken away by hand: there is another one."""
    row, kind = _resting(fleet, number), KINDS["Service"]
    was = _find(fleet, kind, row)["metadata"]
    return _time(
        lambda: fleet.cluster.delete(kind, was["namespace"], was["name"]),
        lambda: _find(fleet, kind, row).get("metadata", was)["uid"] != was["uid"],
    )


def after_edit(fleet: Fleet, number: int) -> float:
    """Its Deployment is scaled by hand: it has as many as it had."""
    row = _resting(fleet, number)
    wanted = _find(fleet, DEPLOYMENT, row)["spec"]["replicas"]
    words = ("scale", "deployment", row.object_name, "-n", "fleet-hearth", f"--replicas={wanted + 1}")
    return _time(
        lambda: fleet.kubectl(*words), lambda: _find(fleet, DEPLOYMENT, row)["spec"]["replicas"] == wanted
    )


def after_policy(fleet: Fleet, number: int) -> float:
    """An account's NetworkPolicy is taken away by hand: there is another one."""
    kind, namespace = KINDS["NetworkPolicy"], f"fleet-team-{number % 10 + 1}"

    def uid() -> str:
        found = fleet.cluster.find(kind, namespace, "account") or {"metadata": {}}
        return str(found["metadata"].get("uid", ""))

    was = uid()
    return _time(lambda: fleet.cluster.delete(kind, namespace, "account"), lambda: uid() not in ("", was))


ACTS = {
    "scaled by the api": after_scale,
    "a Service deleted by hand": after_delete,
    "a Deployment scaled by hand": after_edit,
    "a NetworkPolicy deleted by hand": after_policy,
}


@dataclass(frozen=True)
class Named:
    id: str
    object_name: str


def _resting(fleet: Fleet, number: int) -> Named:
    """One of the caller's own deployments that were at zero, from the last one backwards."""
    of_caller = "SELECT id, uid FROM deployments WHERE account_id = 'hearth'"
    found, uid = fleet.query(f"{of_caller} ORDER BY id DESC LIMIT 1 OFFSET {number}")[0]
    return Named(found, f"d-{found}-{str(uid)[:8]}")


def _find(fleet: Fleet, kind: Kind, row: Named) -> Document:
    return fleet.cluster.find(kind, "fleet-hearth", row.object_name) or {}


def _time(act: Callable[[], object], done: Callable[[], bool]) -> float:
    act()
    begin = time.monotonic()
    while not done():
        if time.monotonic() - begin > 60:
            return 60.0
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
