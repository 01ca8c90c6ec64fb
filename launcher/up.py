"""`hearth up`: the whole platform on one machine, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import leftovers
from launcher.addresses import choose_address, listen
from launcher.data_dir import DataDir
from launcher.embedded import Services
from launcher.platform import Platform
from launcher.ports import NoFreePort, free_port
from launcher.program import Program, StartFailed
from launcher.relay import serve_relay
from launcher.reporter import Reporter
from launcher.supervisor import Supervisor

LEFTOVER_GRACE_SECONDS = 9.0
LEFTOVER_DEADLINE_SECONDS = 12.0


def run_platform(path: Path, host: str, port: int | None) -> int:
    """Start everything, run until a signal, stop everything; the exit status."""
    data_dir = DataDir.at(path)
    try:
        data_dir.make()
        lock = data_dir.take_lock()
        data_dir.status_file.unlink(missing_ok=True)
        address = choose_address(data_dir, host, port)
        listener = listen(address)
        platform = Platform(data_dir, address, Services.of(data_dir.path), free_port(), listener)
        programs = platform.programs(platform.environment())
    except (StartFailed, NoFreePort) as error:
        sys.stderr.write(f"hearth: {error}\n")
        return 1
    try:
        return asyncio.run(supervise(platform, programs))
    finally:
        # The lock goes last: whoever waits for it finds nothing of this platform left.
        data_dir.status_file.unlink(missing_ok=True)
        os.close(lock)


async def supervise(platform: Platform, programs: Sequence[Program]) -> int:
    reporter = Reporter()
    supervisor = Supervisor(
        programs,
        reporter,
        on_ready=lambda: announce(platform),
        on_change=lambda parts: record(platform, parts),
        between=lambda: stop_leftovers(platform.data_dir, reporter),
        logs=[platform.data_dir.logs / "hearth.log"],
    )
    if platform.address.is_local:
        return await supervisor.run()
    ports = platform.services.seaweedfs.ports
    try:
        server = await serve_relay(platform.address.host, ports["public"], ports["s3"])
    except OSError as error:
        reporter.tell("hearth", f"cannot start: port {ports['public']}: {error.strerror}")
        return 1
    async with server:
        return await supervisor.run()


def announce(platform: Platform) -> None:
    """The one line on standard output."""
    env_file = platform.data_dir.env_file
    sys.stdout.write(f"Hearth is ready at {platform.address.url} (key and settings: source {env_file})\n")
    sys.stdout.flush()


def record(platform: Platform, parts: Mapping[str, Any]) -> None:
    """What `hearth status` shows; written first when everything is ready."""
    status = {"pid": os.getpid(), "url": platform.address.url, "parts": parts}
    with contextlib.suppress(OSError):  # A full disk is no reason to stop.
        platform.data_dir.write_status(status)


async def stop_leftovers(data_dir: DataDir, reporter: Reporter) -> None:
    """Engines and trainers."""
    left = await leftovers.stop_all(data_dir.run, LEFTOVER_GRACE_SECONDS, LEFTOVER_DEADLINE_SECONDS)
    for folder in left:
        reporter.tell("hearth", f"{folder} does not stop")
