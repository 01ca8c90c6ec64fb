"""How fast the control plane creates and lists, in one run: `python -m benchmarks.rest`.

Starts a PostgreSQL, a Valkey and an object store of its own, as durable as those of `hearth up`, and a real
`hearth api`; stops them all. Machines differ and are shared, so what counts are ratios, both sides of which
are measured in the same run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import select

from benchmarks.machine import cpu_seconds, percentile, running
from controlplane.bootstrap import bootstrap
from controlplane.config import Settings
from controlplane.db import Database, migrate
from controlplane.resources.datasets.listing import LISTING
from controlplane.resources.tables import DatasetRow
from controlplane.rest.counting import Explain
from controlplane.rest.filters.conditions import read_filter
from controlplane.rest.ordering import read_order
from controlplane.rest.page_tokens import TokenSigner
from controlplane.rest.paging import DEFAULT_PAGE_SIZE, list_of_token
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from launcher.parts import api_argv
from launcher.ports import free_port
from launcher.program import Program

DATASETS = "/v1/accounts/hearth/datasets"
CREATES_PER_CORE = 0.25
DEEP_PAGE = 10_000
DEEP_RATIO = 1.5
PAGE_MS = 15.0
INDEXED = "state = UPLOADING"
NOT_INDEXED = "example_count = 7"
WARM_UP = 50


@dataclass(frozen=True)
class Bench:
    settings: Settings
    key: str
    api_pid: int
    postgres_pid: int

    @property
    def database(self) -> str:
        return self.settings.database_url.replace("+psycopg", "", 1)

    def ask(self, client: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
        """A call on a connection that stays open."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        client.request(method, path, None if body is None else json.dumps(body), headers)
        answer = client.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path} answered {answer.status}: {content.decode()}")
        return json.loads(content)

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.settings.api_port, timeout=60)


@dataclass(frozen=True)
class Cost:
    """What so many of one thing took."""

    count: int
    wall: float
    client: float
    """CPU seconds of the process that asked: this one."""
    api: float
    postgres: float

    def each(self, seconds: float) -> str:
        return f"{seconds / self.count * 1000:.2f} ms"


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="hearth-benchmark-") as folder, started(Path(folder)) as bench:
        line("", "measured", "target", "")
        creates(bench, options.creates, options.connections)
        fill(bench, options.rows)
        pages(bench, options.rows, options.requests)
        filters(bench, options.requests)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="datasets in the account that is listed")
    parser.add_argument("--creates", type=int, default=3_000, help="datasets to create in each way")
    parser.add_argument("--connections", type=int, default=8, help="how many create at the same time")
    parser.add_argument("--requests", type=int, default=200, help="requests for each kind of page")
    return parser.parse_args()


def line(what: str, measured: str, target: str = "", met: str | bool = "") -> None:
    verdict = {True: "met", False: "MISSED"}.get(met, met) if isinstance(met, bool) else met
    print(f"{what:<66} {measured:>12} {target:>10}  {verdict}", flush=True)


@contextmanager
def started(folder: Path) -> Iterator[Bench]:
    """The services and an api, with a first account and its key."""
    services = Services.of(folder)
    with running(services.programs(folder)) as pids:
        environment = {
            **os.environ,
            **services.environment(),
            "HEARTH_DATA_DIR": str(folder / "data"),
            "HEARTH_API_PORT": str(free_port()),
        }
        os.environ.update(environment)
        settings = Settings()
        migrate(settings.database_url)
        ObjectStore.from_settings(settings).ensure_bucket()
        key = bootstrap(settings, with_key=True).key
        assert key is not None
        log = folder / "api.log"
        api = Program("api", api_argv(settings), environment, Path.cwd(), log, lambda _: answers(settings))
        with running([api]) as (api_pid,):
            yield Bench(settings, key, api_pid, pids[-1])


def answers(settings: Settings) -> bool:
    client = http.client.HTTPConnection("127.0.0.1", settings.api_port, timeout=5)
    try:
        client.request("GET", "/readyz")
        return client.getresponse().status == 200
    except OSError:
        return False
    finally:
        client.close()


def creates(bench: Bench, count: int, connections: int) -> None:
    """Creates through the api, against inserts of the same row with a commit each."""
    through_api = measure(bench, http_creator(bench), count, connections)
    raw = measure(bench, raw_inserter(bench), count, connections)
    line(f"create: wall time through the api, {connections} connections", through_api.each(through_api.wall))
    line("  CPU of the api", through_api.each(through_api.api))
    line("  CPU of PostgreSQL", through_api.each(through_api.postgres))
    line(f"insert by psycopg: wall time, {connections} connections", raw.each(raw.wall))
    line("  CPU of the inserting process", raw.each(raw.client))
    line("  CPU of PostgreSQL", raw.each(raw.postgres))
    line("creates a second / inserts a second", f"{raw.wall / through_api.wall:.2f}")
    ratio = raw.client / through_api.api
    target = f">= {CREATES_PER_CORE}"
    line("per core of the process: creates / inserts", f"{ratio:.3f}", target, ratio >= CREATES_PER_CORE)
    both = (raw.client + raw.postgres) / (through_api.api + through_api.postgres)
    line("per core, PostgreSQL's share included", f"{both:.3f}", target, both >= CREATES_PER_CORE)


def measure(bench: Bench, do: Callable[[str], None], count: int, connections: int) -> Cost:
    tag = uuid.uuid4().hex[:8]
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(do, [f"warm-{tag}-{number}" for number in range(WARM_UP)]))
        api, postgres = cpu_seconds(bench.api_pid), cpu_seconds(bench.postgres_pid)
        client, begin = time.process_time(), time.perf_counter()
        list(pool.map(do, [f"c-{tag}-{number}" for number in range(count)]))
        return Cost(
            count,
            wall=time.perf_counter() - begin,
            client=time.process_time() - client,
            api=cpu_seconds(bench.api_pid) - api,
            postgres=cpu_seconds(bench.postgres_pid) - postgres,
        )


def http_creator(bench: Bench) -> Callable[[str], None]:
    """Creates the dataset with an id, on a connection that its thread keeps."""
    mine = threading.local()

    def create(dataset_id: str) -> None:
        if not hasattr(mine, "client"):
            mine.client = bench.client()
        body = {"datasetId": dataset_id, "dataset": {"displayName": "a benchmark"}}
        bench.ask(mine.client, "POST", DATASETS, body)

    return create


def raw_inserter(bench: Bench) -> Callable[[str], None]:
    """Inserts a copy of a row that the api made, on a connection that its thread keeps."""
    row = a_dataset(bench)
    names = ", ".join(row)
    statement = f"INSERT INTO datasets ({names}) VALUES ({', '.join(f'%({name})s' for name in row)})"
    mine = threading.local()

    def insert(dataset_id: str) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = psycopg.connect(bench.database, autocommit=True)
        mine.connection.execute(statement, {**row, "uid": uuid.uuid4(), "id": dataset_id})

    return insert


def a_dataset(bench: Bench) -> dict[str, Any]:
    with psycopg.connect(bench.database, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM datasets LIMIT 1").fetchone()
    assert row is not None
    return {name: Jsonb(value) if isinstance(value, dict) else value for name, value in row.items()}


FILLED: Mapping[str, str] = {
    "uid": "gen_random_uuid()",
    "id": "'d-' || lpad(number::text, 9, '0')",
    "create_time": "now() - number * interval '1 second'",
    "state": "CASE WHEN number % 1000 = 0 THEN 'UPLOADING' ELSE 'READY' END",
    "example_count": "number % 1000",
}


def fill(bench: Bench, rows: int) -> None:
    """Nothing but `rows` datasets in the account: one of a thousand UPLOADING, examples 0 to 999."""
    names = list(a_dataset(bench))
    values = ", ".join(FILLED.get(name, f"given.{name}") for name in names)
    with psycopg.connect(bench.database, autocommit=True) as connection:
        connection.execute("DELETE FROM datasets WHERE ctid <> (SELECT ctid FROM datasets LIMIT 1)")
        connection.execute(
            f"INSERT INTO datasets ({', '.join(names)}) SELECT {values} "
            f"FROM (SELECT * FROM datasets LIMIT 1) given, generate_series(1, {rows}) number"
        )
        connection.execute("DELETE FROM datasets WHERE id NOT LIKE 'd-%'")
        connection.execute("VACUUM (ANALYZE) datasets")


def pages(bench: Bench, rows: int, requests: int) -> None:
    for order in ("name", "create_time"):
        deep = min(DEEP_PAGE, max(2, rows // DEFAULT_PAGE_SIZE))
        first = {"orderBy": order}
        far = {**first, "pageToken": token_of_page(bench, deep, first)}
        near_ms, far_ms = timed(bench, [first, far], requests)
        middle = percentile(near_ms, 0.5)
        line(
            f"page 1 of {rows:,} by {order}, p50", f"{middle:.1f} ms", f"<= {PAGE_MS:g} ms", middle <= PAGE_MS
        )
        line("  p99", f"{percentile(near_ms, 0.99):.1f} ms")
        line(f"page {deep:,}, p50", f"{percentile(far_ms, 0.5):.1f} ms")
        line("  p99", f"{percentile(far_ms, 0.99):.1f} ms")
        cost = measure(bench, page_reader(bench, first), requests, connections=1)
        line("  page 1, CPU of the api", cost.each(cost.api))
        line("  page 1, CPU of PostgreSQL", cost.each(cost.postgres))
        for share in (0.5, 0.99):
            ratio = percentile(far_ms, share) / percentile(near_ms, share)
            name = f"page {deep:,} / page 1, p{share * 100:.0f}"
            line(name, f"{ratio:.2f}", f"<= {DEEP_RATIO}", ratio <= DEEP_RATIO)


def page_reader(bench: Bench, parameters: Mapping[str, str]) -> Callable[[str], None]:
    client = bench.client()

    def read(_: str) -> None:
        bench.ask(client, "GET", f"{DATASETS}?{urlencode(parameters)}")

    return read


def token_of_page(bench: Bench, page: int, parameters: Mapping[str, str]) -> str:
    """The token that the page before would have given."""
    order = parameters["orderBy"]
    with psycopg.connect(bench.database) as connection:
        last = connection.execute(
            f"SELECT id, create_time, uid FROM datasets ORDER BY {order.replace('name', 'id')} "
            f"OFFSET {(page - 1) * DEFAULT_PAGE_SIZE - 1} LIMIT 1"
        ).fetchone()
    assert last is not None
    signer = TokenSigner(bench.settings.page_token_secret, list_of_token(DATASETS, parameters.items()))
    return signer.write(read_order(order, LISTING), last[:1] if order == "name" else last[1:])


def timed(bench: Bench, queries: list[Mapping[str, str]], requests: int) -> list[list[float]]:
    """Milliseconds of each query's requests, one after the other and the queries in turns."""
    client = bench.client()
    found: list[list[float]] = [[] for _ in queries]
    for number in range(requests + WARM_UP):
        for query, times in zip(queries, found, strict=True):
            begin = time.perf_counter()
            bench.ask(client, "GET", f"{DATASETS}?{urlencode(query)}")
            if number >= WARM_UP:
                times.append((time.perf_counter() - begin) * 1000)
    return found


def filters(bench: Bench, requests: int) -> None:
    """Two filters that find one row of a thousand."""
    fast, slow = timed(bench, [{"filter": INDEXED}, {"filter": NOT_INDEXED}], max(1, requests // 10))
    for text, times in ((INDEXED, fast), (NOT_INDEXED, slow)):
        line(f"filter {text!r}: p50", f"{percentile(times, 0.5):.1f} ms", met=plan_of(bench, text))
    line("  not indexed / indexed", f"{percentile(slow, 0.5) / percentile(fast, 0.5):.1f}")


def plan_of(bench: Bench, text: str) -> str:
    """The indexes that a filtered page reads."""
    condition = read_filter(text, LISTING)
    assert condition is not None
    query = select(DatasetRow).where(DatasetRow.account_id == "hearth", condition).order_by(DatasetRow.id)
    database = Database(bench.settings.database_url, pool_size=1)
    with database.session() as session:
        plan = session.execute(Explain(query.limit(DEFAULT_PAGE_SIZE + 1))).scalar_one()[0]["Plan"]
    database.close()
    return ", ".join(indexes_in(plan)) or "reads the whole table"


def indexes_in(plan: Mapping[str, Any]) -> list[str]:
    own = []
    if "Index Name" in plan:
        condition = plan.get("Index Cond", "")
        filtered = " and filters" if "Filter" in plan else ""
        own = [f"{plan['Index Name']} {condition}{filtered}"]
    return own + [name for inner in plan.get("Plans", []) for name in indexes_in(inner)]


if __name__ == "__main__":
    main()
