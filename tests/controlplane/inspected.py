"""What inspections look at: the small real model, datasets for it, and a worker when a test says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from controlplane.bootstrap import ensure_account
from controlplane.resources.tables import DatasetRow, InspectionRow, ModelRow
from workers.context import WorkerContext
from workers.reconcile.inspections import reconcile_inspection

MODEL = Path(__file__).parents[2] / "quickstart" / "model"
HOME = "/v1/accounts/hearth"
INSPECT = f"{HOME}/datasets/chats:inspect"
BASE = "accounts/hearth/models/base"
ASKED = {"baseModel": BASE, "maxContextLength": 100}
NEWER = {"baseModel": BASE, "collection": "supervisedFineTuningJobs"}


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


ROWS = [chat(f"question {number}", f"answer {number}") for number in range(60)]
ROWS[10] = ROWS[9]
ROWS[20] = chat("long " * 200, "never learned")
PAIRS = [
    {
        "input": {"messages": [{"role": "user", "content": f"question {number}"}]},
        "preferred_output": [{"role": "assistant", "content": f"answer {number}"}],
        "non_preferred_output": [{"role": "assistant", "content": "no idea"}],
    }
    for number in range(20)
]
HELD_OUT = [ROWS[3], chat("a new one", "and its answer")]


@pytest.fixture(autouse=True)
def inputs(db, admin_key, object_store, settings):
    """The small real model of the quickstart, and datasets for it; requests do not wait for workers."""
    settings.verdict_wait_seconds = 0

    def put(row: Any, files: dict[str, bytes]) -> Any:
        row.files = {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        }
        for name, data in files.items():
            object_store.put_bytes(row.prefix + name, data)
        return row

    template = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    ready: dict[str, Any] = {"account_id": "hearth", "state": "READY"}
    with db.session() as session:
        ensure_account(session, "hearth", "a@x.org")
        base = ModelRow(
            **ready,
            id="base",
            kind="HF_BASE_MODEL",
            facts={"supports_lora": True, "architecture": "LlamaForCausalLM", "parameter_count": 10},
            context_length=1024,
            conversation_config={"style": "jinja", "template": template},
        )
        session.add(base)
        for id, format, rows in (
            ("chats", "CHAT", ROWS),
            ("held-out", "CHAT", HELD_OUT),
            ("pairs", "PREFERENCE", PAIRS),
            ("texts", "COMPLETION", [{"prompt": "a", "completion": " b", "mood": "good"}] * 3),
        ):
            fields = sorted(rows[0]) if format == "COMPLETION" else []
            row = DatasetRow(
                **ready, id=id, format=format, example_count=len(rows), report={"fields": fields}
            )
            session.add(row)
            session.flush()
            put(row, {"rows.jsonl": "".join(json.dumps(r) + "\n" for r in rows).encode()})
        session.flush()
        put(base, {path.name: path.read_bytes() for path in MODEL.iterdir()})


@pytest.fixture
def work(settings, db, object_store) -> Callable[[], None]:
    """Has a worker look at everything that is to be inspected, once."""
    context = WorkerContext(settings, db, object_store, runtime=None)  # type: ignore[arg-type]

    def visit() -> None:
        with db.session() as session:
            uids = list(session.scalars(select(InspectionRow.uid)))
        for uid in uids:
            reconcile_inspection(context, uid)

    return visit
