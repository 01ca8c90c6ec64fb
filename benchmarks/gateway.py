"""How much the gateway costs, next to what others have built for the same place.

    python -m benchmarks.gateway

An engine that costs next to nothing is asked directly, through Hearth's gateway, through the published
vllm-router and through the published litellm proxy, in turns and in one run. The caller, the engine and what
is measured share the machine's cores, so that ratios count; CPU seconds for each request count on a machine
that others use as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import Contestant, hearth, litellm, nothing, vllm_router
from benchmarks.engine import CHUNKS, Engine
from benchmarks.load import Asked, Load, load
from benchmarks.machine import cpu_seconds, memory, open_files, running
from benchmarks.tools import DEFAULT_FOLDER, Tools

CONNECTIONS = 16
WARM_UP_SECONDS = 1
ROUTER_REQUESTS = 0.25
ROUTER_STREAMS = 0.7
LITELLM_REQUESTS = 40.0
ADDED_MS = 0.45
HELD_MB = 400
GROWTH_MB = 8.0
"""More than this between the first tenth of many requests and the last is growth."""
MB = 1024 * 1024
OTHERS = {"vllm-router": vllm_router, "litellm": litellm}


@dataclass(frozen=True)
class Figures:
    """The middle of the rounds."""

    a_second: float
    p50_ms: float
    cpu_us: float
    """CPU of the contestant for each answer."""
    errors: int


@dataclass(frozen=True)
class Bench:
    tools: Tools
    folder: Path
    seconds: int
    rounds: int

    def measure(self, who: Sequence[Contestant], kind: str, connections: int) -> dict[str, Figures]:
        """Each in turn, round by round, so that what else the machine does falls on all of them."""
        found: dict[str, list[tuple[Load, float]]] = {one.name: [] for one in who}
        for _ in range(self.rounds):
            for one in who:
                asked = one.asked[kind]
                load(self.tools, self.folder, asked, connections, WARM_UP_SECONDS)
                before = cpu(one)
                seen = load(self.tools, self.folder, asked, connections, self.seconds)
                found[one.name].append((seen, (cpu(one) - before) / max(1, seen.answered)))
        return {name: middle(rounds) for name, rounds in found.items()}


def main() -> None:
    options = read_options()
    # Load generator and engine have a connection for each of the slow streams.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="hearth-benchmark-") as name:
        tools = Tools.at(options.tools, routers=bool(options.against))
        bench = Bench(tools, Path(name), options.seconds, options.rounds)
        line("", "measured", "target", "")
        line("the gateway's Python", interpreter())
        with contestants(bench, options.against) as who:
            for one in who:
                check(one)
            if options.rounds:
                compare(bench, who)
            ours = next(one for one in who if one.name == "hearth")
            hold(bench, ours, options.streams)
            repeat(bench, ours, options.requests)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="measurements of each, of which the middle counts; 0 leaves them out",
    )
    parser.add_argument("--streams", type=int, default=2_000, help="slow streams to hold; 0 leaves that out")
    parser.add_argument(
        "--requests",
        type=int,
        default=1_000_000,
        help="requests after which the memory must be what it was after a tenth of them; 0 leaves that out",
    )
    parser.add_argument(
        "--against",
        nargs="*",
        choices=sorted(OTHERS),
        default=sorted(OTHERS),
        help="the routers to compare with",
    )
    parser.add_argument("--tools", type=Path, default=DEFAULT_FOLDER, help="folder of the fetched programs")
    return parser.parse_args()


def line(what: str, measured: str, target: str = "", met: str | bool = "") -> None:
    verdict = {True: "met", False: "MISSED"}.get(met, met) if isinstance(met, bool) else met
    print(f"{what:<66} {measured:>14} {target:>10}  {verdict}", flush=True)


def interpreter() -> str:
    """Its version and place: how it was built, which it does not say, makes a fifth of a request's cost."""
    return f"{platform.python_version()} of {sys.base_prefix}"


@contextmanager
def contestants(bench: Bench, against: Sequence[str]) -> Iterator[list[Contestant]]:
    engine = Engine.anywhere()
    with ExitStack() as stack:
        (pid,) = stack.enter_context(running([engine.program(bench.tools, bench.folder)]))
        who = [stack.enter_context(nothing(engine, pid)), stack.enter_context(hearth(engine, bench.folder))]
        who += [stack.enter_context(OTHERS[name](bench.tools, engine, bench.folder)) for name in against]
        yield who


def check(one: Contestant) -> None:
    """What is measured must be the right answers."""
    whole = json.loads(answer(one.asked["whole"]))
    streamed = answer(one.asked["stream"]).decode()
    text = whole["choices"][0]["message"]["content"]
    if (
        text != "The quick brown fox jumps."
        or streamed.count(" word") != CHUNKS - 1
        or "[DONE]" not in streamed
    ):
        raise SystemExit(f"{one.name} does not answer as the engine does")


def answer(asked: Asked) -> bytes:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {asked.key or 'none'}"}
    request = urllib.request.Request(asked.url, asked.body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return bytes(response.read())


def compare(bench: Bench, who: Sequence[Contestant]) -> None:
    whole = bench.measure(who, "whole", CONNECTIONS)
    show(whole, f"requests, {CONNECTIONS} connections")
    streams = bench.measure(who, "stream", CONNECTIONS)
    show(streams, f"streams of {CHUNKS} chunks, {CONNECTIONS} connections")
    single = bench.measure(who, "whole", 1)
    show(single, "requests, 1 connection")
    added = single["hearth"].p50_ms - single["nothing"].p50_ms
    line("p50 added at 1 connection", f"{added:.2f} ms", f"<= {ADDED_MS}", added <= ADDED_MS)
    if "vllm-router" in whole:
        ratio("requests / vllm-router's", whole, "vllm-router", ROUTER_REQUESTS)
        ratio("streams / vllm-router's", streams, "vllm-router", ROUTER_STREAMS)
    if "litellm" in whole:
        ratio("requests / litellm's", whole, "litellm", LITELLM_REQUESTS)
        ratio("streams / litellm's", streams, "litellm")


def show(figures: dict[str, Figures], what: str) -> None:
    for name, found in figures.items():
        line(f"{what}: {name}", f"{found.a_second:,.0f} /s")
        line("  p50; CPU for each", f"{found.p50_ms:.2f} ms; {found.cpu_us:.0f} µs")
        if found.errors:
            line("  errors", str(found.errors), "0", False)


def ratio(what: str, figures: dict[str, Figures], other: str, target: float | None = None) -> None:
    found = figures["hearth"].a_second / max(figures[other].a_second, 0.01)
    if target is None:
        line(what, f"{found:.2f}")
    else:
        line(what, f"{found:.2f}", f">= {target:g}", found >= target)


def hold(bench: Bench, ours: Contestant, streams: int) -> None:
    """So many slow streams at one time."""
    if not streams:
        return
    seen: list[tuple[int, int]] = []
    before = sum(map(open_files, ours.pids))
    with watched(lambda: seen.append((sum(map(open_files, ours.pids)), size(ours)))):
        held = load(bench.tools, bench.folder, ours.asked["slow"], streams, seconds=25, timeout=60)
    most = max(files for files, _ in seen) - before
    # Each stream is a connection on both sides.
    line("slow streams at one time", f"{most // 2:,}", f">= {streams:,}", most // 2 >= streams)
    line("  errors", str(held.errors), "0", held.errors == 0 and held.answered > 0)
    largest = max(size for _, size in seen) / MB
    line("  memory of the gateway", f"{largest:.0f} MB", f"< {HELD_MB} MB", largest < HELD_MB)


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def repeat(bench: Bench, ours: Contestant, requests: int) -> None:
    """Many requests: the memory after a tenth of them against the end's."""
    answered, errors, sizes = 0, 0, [(0, size(ours))]
    while answered < requests:
        done = load(bench.tools, bench.folder, ours.asked["whole"], CONNECTIONS, bench.seconds)
        time.sleep(2)  # what is metered is written
        answered, errors = answered + done.answered, errors + done.errors
        sizes.append((answered, size(ours)))
    if not requests:
        return
    settled = next(size for count, size in sizes if count >= requests / 10)
    growth = (sizes[-1][1] - settled) / MB
    line(f"memory after {answered:,} requests", f"{sizes[-1][1] / MB:.0f} MB")
    line("  growth since the first tenth", f"{growth:.1f} MB", f"<= {GROWTH_MB:g} MB", growth <= GROWTH_MB)
    line("  errors", str(errors), "0", errors == 0)


def middle(rounds: Sequence[tuple[Load, float]]) -> Figures:
    return Figures(
        statistics.median(seen.a_second for seen, _ in rounds),
        statistics.median(seen.p50_ms for seen, _ in rounds),
        statistics.median(cost for _, cost in rounds) * 1e6,
        sum(seen.errors for seen, _ in rounds),
    )


def cpu(one: Contestant) -> float:
    return sum(map(cpu_seconds, one.pids))


def size(one: Contestant) -> int:
    return sum(map(memory, one.pids))


if __name__ == "__main__":
    main()
