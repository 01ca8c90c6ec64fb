"""Load on one server by wrk: how many requests it answers, how fast, and what went wrong."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools import Tools

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}
GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class Asked:
    """A request that is sent over and over."""

    url: str
    body: str
    key: str = ""

    def script(self) -> str:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.key}"} if self.key else {}
        )
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
        return "\n".join(['wrk.method = "POST"', f"wrk.body = [[{self.body}]]", *lines, ""])


@dataclass(frozen=True)
class Load:
    answered: int
    a_second: float
    p50_ms: float
    errors: int
    """Answers that are not 200, and connections that broke or timed out."""


def load(tools: Tools, folder: Path, asked: Asked, connections: int, seconds: int, timeout: int = 30) -> Load:
    script = folder / "asked.lua"
    script.write_text(asked.script())
    options = [f"-t1 -c{connections} -d{seconds}s --timeout {timeout}s --latency -s {script}".split()]
    command = [str(tools.wrk), *options[0], asked.url]
    done = subprocess.run(
        command, env=tools.environment, capture_output=True, text=True, timeout=seconds + GRACE_SECONDS
    )
    if done.returncode:
        raise SystemExit(f"wrk failed: {done.stderr or done.stdout}")
    return read(done.stdout)


def read(report: str) -> Load:
    """The figures in wrk's report."""
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    found = [int(number) for match in (broken, refused) if match for number in match.groups()]
    number, unit = _must(r"50%\s+([\d.]+)(us|ms|s|m)\b", report)
    return Load(
        answered=int(_must(r"(\d+) requests in", report)[0]),
        a_second=float(_must(r"Requests/sec:\s+([\d.]+)", report)[0]),
        p50_ms=float(number) * UNITS[unit],
        errors=sum(found),
    )


def _must(pattern: str, report: str) -> tuple[str, ...]:
    match = re.search(pattern, report)
    if match is None:
        raise SystemExit(f"wrk said something unknown:\n{report}")
    return match.groups()
