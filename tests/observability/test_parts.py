"""A worker and beat as somebody sees them who watches their ports; and that documents, the dashboard and the
alerts name what all parts really show."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.docs.shown import ROOT, table_rows
from tests.gateway.serving import wait_until
from tests.observability.conftest import Parts, Watched, names_of

PAGE = ROOT / "docs" / "observability.md"
MONITORING = ROOT / "k8s" / "monitoring"
TEXT = re.compile(r"\"[^\"]*\"")
LABELS = re.compile(r"\{[^}]*\}|\b(?:by|on|group_left|group_right|without|ignoring)\s*\([^)]*\)|\[[^\]]*\]")
NAME = re.compile(r"\b[a-z][a-z0-9_]*_[a-z0-9_]+\b(?!\s*\()")


def test_a_worker_shows_what_it_does_and_what_the_platform_holds(parts: Parts) -> None:
    worker = parts.worker
    wait_until(lambda: worker.samples("hearth_worker_tasks_total").get(("success", "hearth.sweep")))
    assert worker.samples("hearth_worker_task_wait_seconds_count")[("control",)] > 0
    assert worker.samples("hearth_platform_queue_messages").keys() == {("control",), ("training",)}
    assert worker.samples("hearth_platform_database_reachable") == {(): 1.0}
    assert worker.samples("hearth_platform_rows_due")[("deployments",)] == 0
    assert worker.samples("hearth_worker_trainers") == {(): 0.0}
    assert worker.get("/healthz").json() == {"status": "ok"}
    assert worker.get("/readyz").json() == {"status": "ok"}
    assert worker.get("/").status_code == 404


def test_beat_says_when_it_last_sent_a_tick(parts: Parts) -> None:
    last = parts.beat.samples("hearth_beat_last_tick_timestamp_seconds")[()]
    assert abs(time.time() - last) < 10
    assert parts.beat.samples("hearth_beat_ticks_total")[("hearth.sweep",)] > 0
    assert parts.beat.get("/healthz").status_code == 200


def test_a_workers_log_is_one_json_object_a_line_that_names_the_task(parts: Parts) -> None:
    log = parts.worker.log
    assert log is not None
    wait_until(lambda: "succeeded" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    done = next(line for line in lines if "succeeded" in line["message"])
    assert done["task"].startswith("hearth.")
    assert done["task_id"] in done["message"]


def shown(part: Watched) -> dict[str, Any]:
    families = text_string_to_metric_families(part.get("/metrics").text)
    return {family.name: family for family in families}


@pytest.fixture
def families(parts: Parts, gateway: Any, api: Any) -> dict[str, Any]:
    """Everything that a platform shows, by name."""
    ports = (parts.worker, parts.beat, gateway[1], api[1])
    return {name: family for port in ports for name, family in shown(port).items()}


def test_the_page_the_dashboard_and_the_alerts_name_what_is_shown(families: dict[str, Any]) -> None:
    ours = {name: family for name, family in families.items() if name.startswith("hearth_")}
    del ours["hearth_build_info"]
    rows = {row[0].strip("`"): row[1:] for row in table_rows(PAGE, r"`hearth_[a-z_]+`")}
    described = {total(family): (family.type, family.documentation) for family in ours.values()}
    assert {name: (row[0], row[2]) for name, row in rows.items()} == described
    for family in ours.values():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels in (set(), set(re.findall(r"`(\w+)`", rows[total(family)][1]))), family.name
    known = {name for family in families.values() for name in names_of(family)}
    asked = {name for expression in (*dashboard(), *alerts()) for name in named(expression)}
    assert asked - known == set()
    # Nothing is measured that nobody is shown.
    unseen = {name for name, family in ours.items() if not names_of(family) & asked}
    assert unseen == set()


def test_every_alert_has_its_line_in_the_page_and_no_other_has() -> None:
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"][0]["rules"]
    told = {name for row in table_rows(PAGE, r"`Hearth\w+`.*") for name in re.findall(r"Hearth\w+", row[0])}
    assert told == {rule["alert"] for rule in rules}


def test_names_are_read_out_of_queries() -> None:
    query = 'sum by (some_label) (rate(hearth_a_total{le_x="y_z"}[5m])) / on (a_b) max(hearth_b_seconds)'
    assert named(query) == {"hearth_a_total", "hearth_b_seconds"}


def test_without_its_broker_a_worker_lives_but_is_not_ready_until_it_is_back(parts: Parts) -> None:
    parts.broker.cut()
    try:
        answer = wait_until(lambda: not_ready(parts.worker.get("/readyz")))
        assert "the broker does not answer" in answer.json()["missing"]
        assert "127.0.0.1" not in answer.text
        assert parts.worker.get("/healthz").status_code == 200
        assert parts.worker.samples("hearth_platform_broker_reachable") == {(): 0.0}
        assert "hearth_platform_queue_messages" not in parts.worker.names()
        assert not_ready(parts.beat.get("/readyz"))
    finally:
        parts.broker.mend()
    before = sum(parts.worker.samples("hearth_worker_tasks_total").values())
    wait_until(lambda: sum(parts.worker.samples("hearth_worker_tasks_total").values()) > before, seconds=60)
    wait_until(parts.worker.is_ready)
    wait_until(parts.beat.is_ready)


def total(family: Any) -> str:
    return str(family.name) + ("_total" if family.type == "counter" else "")


def named(expression: str) -> set[str]:
    """The metrics of a PromQL expression: what is left without texts, labels, ranges and functions."""
    return set(NAME.findall(LABELS.sub(" ", TEXT.sub('""', expression))))


def dashboard() -> Iterator[str]:
    found = json.loads((MONITORING / "hearth.json").read_text())
    yield from (target["expr"] for panel in found["panels"] for target in panel.get("targets", ()))
    for variable in found["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((\w+), \w+\)", r"\1", variable["query"]["query"])


def alerts() -> Iterator[str]:
    rules = yaml.safe_load(Path(MONITORING / "rules.yaml").read_text())
    yield from (rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])


def not_ready(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.status_code == 503 else None
