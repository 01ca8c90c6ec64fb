"""`python -m workers.training.inspect`: a job's data looked at, and nothing trained.

Reads {"spec", "files", "first_row", "memory_bytes"} on stdin; writes {"report"}, or {"code", "message"} where
nothing can be read at all. The same reading and the same check as the trainer's.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

# The tokenizer needs no torch, and importing it takes longer than reading a small dataset.
sys.modules["torch"] = None  # type: ignore[assignment]

from workers.training.config import JobSpec  # noqa: E402
from workers.training.errors import TrainingFailure  # noqa: E402
from workers.training.examples.encoding import Encoder  # noqa: E402
from workers.training.examples.reading import reading_of, start_of  # noqa: E402
from workers.training.examples.tokenizer import load_tokenizer, stop_token_ids  # noqa: E402
from workers.training.preflight.estimate import estimate  # noqa: E402
from workers.training.preflight.preview import preview  # noqa: E402
from workers.training.preflight.report import Data, check_data, summary  # noqa: E402

SHOWN_ROWS = 50


def main() -> None:
    logging.disable(logging.CRITICAL)
    asked = json.load(sys.stdin)
    # Of this process and of each that it starts: the machine is others' too.
    resource.setrlimit(resource.RLIMIT_AS, (asked["memory_bytes"], resource.RLIM_INFINITY))
    try:
        answer: dict[str, Any] = {"report": inspect(asked)}
    except TrainingFailure as failure:
        answer = {"code": failure.code, "message": failure.message}
    sys.stdout.write(json.dumps(answer, allow_nan=False))


def inspect(asked: dict[str, Any]) -> dict[str, Any]:
    """The report; with `first_row` only the rows from there on."""
    spec = JobSpec.model_validate(asked["spec"])
    files, base = asked["files"], Path(asked["files"]["base"])
    tokenizer = load_tokenizer(base, spec.base_model.name)
    data = Data(
        reading_of(spec, tokenizer),
        [Path(path) for path in files["dataset"]],
        [Path(path) for path in files["evaluation"]],
        spec.cutoff_length,
        spec.epochs,
    )
    if asked["first_row"]:
        return {"rows": _rows(data, base, tokenizer, asked["first_row"])}
    checked = check_data(data, base, tokenizer, Path(files["work"]))
    counts = [summary(tokenized.counts) for tokenized in checked.tokenized]
    return {
        "kind": spec.kind,
        "masking": checked.masking,
        "template": data.reading.origin,
        "cutoff_length": checked.cutoff,
        "training": counts[0],
        "evaluation": counts[1] if len(counts) > 1 else None,
        "findings": [finding.to_dict() for finding in checked.findings],
        "estimate": estimate(spec, checked.tokenized[0].path),
        "rows": _rows(replace(data, cutoff=checked.cutoff), base, tokenizer, 1),
    }


def _rows(data: Data, base: Path, tokenizer: Any, first: int) -> list[dict[str, Any]]:
    encoder = Encoder(tokenizer, stop_token_ids(base, tokenizer))
    with data.reading.open(encoder) as reader:
        start = start_of(reader, encoder, data.train, tokenizer)
        return preview(data.train, reader, encoder, start.leading, data.cutoff, first, SHOWN_ROWS)


if __name__ == "__main__":
    main()
