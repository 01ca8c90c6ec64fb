"""The benchmark of firectl's start runs as it is documented; its figures are judged by people."""

import subprocess
import sys
from pathlib import Path

import pytest

import cli


@pytest.mark.e2e
def test_the_benchmark_measures_all_that_it_promises():
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.cli", "--rounds", "1"],
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for words in (
        "firectl version / python -c pass",
        "firectl --help / python -c pass",
        'firectl list models (100 of them) / python -c "import httpx"',
    ):
        assert words in ran.stdout, words
