"""The job's last word: result.json, written after everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from controlplane.storage import ObjectStore, StorageUnavailable
from workers.training.errors import Failure
from workers.training.examples.counts import Counts, histogram

if TYPE_CHECKING:  # It brings libraries that take seconds to load.
    from workers.training.preflight.report import Checked

RESULT = "result.json"
OUTAGE_TRIES = 30
OUTAGE_PAUSE_SECONDS = 10.0


@dataclass
class Report:
    """What happened to the rows, and what the owner should know; filled as the job goes on."""

    rows_in: int = 0
    rows_trained: int = 0
    rows_evaluated: int = 0
    rows_dropped: int = 0
    truncated_rows: int = 0
    tokens: int = 0
    """Of one epoch, without padding."""
    trained_tokens: int = 0
    """Those of them that count in the loss."""
    masking: str = ""
    """How the trained text was found: unk_token, generation, prefix or completion."""
    steps: int = 0
    steps_per_epoch: int = 0
    micro_batch_size: int = 0
    resumed_from_step: int = 0
    stopped_early: bool = False
    """The evaluation got no better, and steps were left out."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """On held-out rows: {"before": scores, "after": scores}, see `evaluate.Evaluation.as_message`."""
    warnings: list[str] = field(default_factory=list)
    """Filled by `Job.warn`."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    """What was found in the data before training: code, severity, sentence, hint, rows, places."""
    lengths: list[dict[str, int]] = field(default_factory=list)
    """Rows by their length in tokens: of each step its upper end, and the rows."""

    def check(self, checked: Checked) -> None:
        """Take in what the check of the data found."""
        self.count(checked.train)
        self.masking = checked.masking
        self.findings = [finding.to_dict() for finding in checked.findings]

    def count(self, counts: Counts) -> None:
        self.rows_in = counts.rows_in
        self.rows_trained = counts.rows_trained
        self.rows_dropped = counts.rows_dropped
        self.truncated_rows = counts.truncated_rows
        self.tokens = counts.tokens
        self.trained_tokens = counts.trained_tokens
        self.lengths = histogram(counts.lengths)


def success_result(metrics: dict[str, Any], report: Report) -> dict[str, Any]:
    return {
        "outcome": "succeeded",
        "code": "OK",
        "reason": "",
        "message": "",
        "metrics": metrics,
        "report": asdict(report),
    }


def failure_result(failure: Failure, report: Report) -> dict[str, Any]:
    return {"outcome": "failed", **asdict(failure), "metrics": {}, "report": asdict(report)}


def write_result(store: ObjectStore, prefix: str, result: dict[str, Any]) -> None:
    outlast_outages(lambda: store.put_bytes(prefix + RESULT, json.dumps(result, allow_nan=False).encode()))


def outlast_outages(
    action: Callable[[], None], tries: int = OUTAGE_TRIES, pause: float = OUTAGE_PAUSE_SECONDS
) -> None:
    """Do it again while the object store is away, for minutes: hours of training may hang on it."""
    for attempt in range(1, tries + 1):
        try:
            action()
        except StorageUnavailable:
            if attempt == tries:
                raise
            time.sleep(pause)
        else:
            return
