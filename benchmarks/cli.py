"""How fast firectl starts, in one run: `python -m benchmarks.cli`.

Starts a real `hearth api` on services of its own, and runs commands as a shell does, each in turn with the
bare interpreter that they are compared with: machines differ and are shared, so what counts are ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.rest import Bench, line, started

MODELS = 100
BARE = "python -c pass"
HTTPX = 'python -c "import httpx"'
PROGRAM = Path(sys.executable).with_name("firectl")
COMMANDS: Mapping[str, Sequence[str]] = {
    BARE: (sys.executable, "-c", "pass"),
    HTTPX: (sys.executable, "-c", "import httpx"),
    "firectl version": (str(PROGRAM), "version"),
    "firectl --help": (str(PROGRAM), "--help"),
    f"firectl list models ({MODELS} of them)": (str(PROGRAM), "list", "models"),
}
# (command, what it is compared with, the most that the ratio may be)
TARGETS = (
    ("firectl version", BARE, 5.0),
    ("firectl --help", BARE, 5.0),
    (f"firectl list models ({MODELS} of them)", HTTPX, 2.0),
)


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="hearth-benchmark-") as folder, started(Path(folder)) as bench:
        fill(bench)
        environment = environment_of(bench, Path(folder))
        check_list(environment)
        report(wall_times(environment, options.rounds))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how often each command runs")
    return parser.parse_args()


def fill(bench: Bench) -> None:
    """Makes the models that are listed."""
    client = bench.client()
    for number in range(MODELS):
        body = {
            "modelId": f"model-{number}",
            "model": {"kind": "HF_BASE_MODEL", "displayName": f"Model {number}"},
        }
        bench.ask(client, "POST", "/v1/accounts/hearth/models", body)


def environment_of(bench: Bench, folder: Path) -> dict[str, str]:
    """That of a user whose installation has its modules compiled, as every installation has."""
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        "HOME": str(folder),
        "FIREWORKS_BASE_URL": f"http://127.0.0.1:{bench.settings.api_port}",
        "FIREWORKS_API_KEY": bench.key,
        "FIREWORKS_ACCOUNT_ID": "hearth",
    }


def check_list(environment: Mapping[str, str]) -> None:
    """What is measured is a list of all models, not an error."""
    command = (str(PROGRAM), "list", "models", "-o", "text")
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = sum("model-" in row for row in ran.stdout.splitlines())
    if found != MODELS:
        raise SystemExit(f"firectl listed {found} models, not {MODELS}")


def wall_times(environment: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, after one that compiles the modules."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            if number:
                times[name].append(time.perf_counter() - begin)
    return times


def report(times: Mapping[str, Sequence[float]]) -> None:
    line("median wall time", "measured", "target", "")
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        line(name, f"{median * 1000:.0f} ms")
    for name, other, most in TARGETS:
        ratio = medians[name] / medians[other]
        line(f"{name} / {other}", f"{ratio:.2f}", f"<= {most:g}", ratio <= most)


if __name__ == "__main__":
    main()
