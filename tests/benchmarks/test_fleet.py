"""How the fleet's benchmark counts requests: by the API server's audit log, while it is being written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.fleet import Audit

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)


def entry(audit_id: str, verb: str, resource: str, user_agent: str = "hearth") -> str:
    asked: dict[str, Any] = {
        "auditID": audit_id,
        "verb": verb,
        "requestURI": f"/api/v1/{resource}",
        "userAgent": user_agent,
        "requestReceivedTimestamp": "2026-01-02T03:04:05.600000Z",
        "objectRef": {"resource": resource},
    }
    return json.dumps(asked)


def test_each_request_of_hearths_is_counted_once_in_its_time(tmp_path: Path) -> None:
    log, at = tmp_path / "audit.log", MOMENT.timestamp()
    watched = entry("1", "watch", "pods")
    others = entry("2", "update", "pods", "kube-scheduler/v1")
    half, rest = entry("3", "patch", "services")[:40], entry("3", "patch", "services")[40:]
    log.write_text(f"{watched}\n{others}\n{watched}\n{half}")
    audit = Audit(log)
    assert audit.asked(at, at + 1) == {"watch pods": 1}
    log.open("a").write(f"{rest}\n")
    assert audit.asked(at, at + 1) == {"watch pods": 1, "patch services": 1}
    assert audit.asked(at + 1, at + 2) == {}
    assert audit.last_change() == at
