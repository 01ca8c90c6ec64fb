"""The checks run in every worker: they must start fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import workers.validation.adapter_files, workers.validation.datasets, workers.validation.model_files
print(*sorted({"torch", "transformers", "vllm", "numpy"} & sys.modules.keys()))
"""


def test_the_checks_import_no_engine() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
