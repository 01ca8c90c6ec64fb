"""The benchmark of the REST service runs as it is documented; its figures are judged by people."""

import subprocess
import sys

import pytest

from controlplane.db import PROJECT_ROOT


@pytest.mark.e2e
def test_the_benchmark_measures_all_that_it_promises():
    small = ["--rows", "2000", "--creates", "20", "--connections", "2", "--requests", "3"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.rest", *small],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for words in (
        "creates a second / inserts a second",
        "per core of the process: creates / inserts",
        "page 1 of 2,000 by name, p50",
        "page 40 / page 1, p99",
        "page 1 of 2,000 by create_time, p50",
        "filter 'state = UPLOADING': p50",
        "ix_datasets_account_id_state",
        "not indexed / indexed",
    ):
        assert words in ran.stdout, words
