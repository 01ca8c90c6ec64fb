"""What a trainer does about the libraries that it imports, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_config import spec

IMPORTS = """
import sys
from pathlib import Path
from workers.training.config import JobSpec
from workers.training.libraries import prepare_libraries
prepare_libraries(JobSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
for name in ("bitsandbytes", "wandb"):
    print(name, name in sys.modules)
"""


@pytest.mark.parametrize(
    ("changes", "kept_out"),
    [
        ({}, {"bitsandbytes", "wandb"}),
        ({"quantize_base": True}, {"wandb"}),
        ({"wandb": {"project": "p", "run_id": "r"}}, {"bitsandbytes"}),
    ],
)
def test_a_library_that_the_job_does_not_need_is_kept_out(
    tmp_path: Path, changes: dict[str, Any], kept_out: set[str]
) -> None:
    argv = [sys.executable, "-c", IMPORTS, spec(**changes).model_dump_json(), str(tmp_path)]

    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()

    assert {line.split()[0] for line in told if line.endswith("True")} == kept_out
