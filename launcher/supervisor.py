"""Starts programs in order, keeps them running, and stops them in the opposite order.

Every program is a child that dies with this process (see `child`). Until everything is ready the first
failure ends the start, and nothing is left running; after that a program that ends is started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launcher.logs import turn_over
from launcher.program import Program, StartFailed, child_argv, last_words
from launcher.reporter import Reporter

READY_SECONDS = 90.0
READY_POLL_SECONDS = 0.05
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
LOG_CHECK_SECONDS = 30.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Keeper:
    """One program: started when what it requires is ready, and started again whenever it ends."""

    def __init__(self, program: Program, reporter: Reporter) -> None:
        self.program = program
        self.reporter = reporter
        self.process: asyncio.subprocess.Process | None = None
        self.is_ready = asyncio.Event()
        self.restarts = 0
        self.state = "WAITING"

    async def start(self, required: Sequence[Keeper]) -> None:
        """Start it for the first time; raises StartFailed."""
        for keeper in required:
            await keeper.is_ready.wait()
        began = time.monotonic()
        await self._launch()
        await self._until_ready()
        self._mark_ready(began)

    async def keep(self) -> None:
        """Start it again whenever it ends, with a growing pause for one that does not stay up."""
        delay = FIRST_DELAY_SECONDS
        while not self.program.runs_once:
            began = time.monotonic()
            await self._ended()
            if time.monotonic() - began > HEALTHY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self.tell(f"{self.how_it_ended()}; starting it again in {delay:.1f} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_SECONDS)
            await self._restart()

    async def stop(self) -> None:
        """SIGTERM, or what the program takes for it; at the deadline SIGKILL, to all of its process group."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        self.state = "STOPPING"
        process.send_signal(self.program.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), self.program.stop_seconds)
        except TimeoutError:
            self.tell(f"does not stop within {self.program.stop_seconds:.0f} s: killed")
        self._kill_group(process.pid)
        await process.wait()
        self.state = "STOPPED"

    def tell(self, message: str) -> None:
        self.reporter.tell(self.program.name, message)

    def how_it_ended(self) -> str:
        code = self.process.returncode if self.process else None
        how = f"exited with {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        words = last_words(self.program.log)
        return f"{how}: {words}" if words else how

    async def _restart(self) -> None:
        self.restarts += 1
        began = time.monotonic()
        try:
            await self._launch()
            await self._until_ready()
        except StartFailed as error:
            self.tell(str(error))
        else:
            self._mark_ready(began)

    async def _launch(self) -> None:
        self.state = "STARTING"
        self.is_ready.clear()
        try:
            if self.program.prepare:
                await asyncio.to_thread(self.program.prepare)
            await self._spawn()
        except OSError as error:
            raise StartFailed(f"{self.program.name}: {error.strerror}: {error.filename or ''}") from None

    async def _spawn(self) -> None:
        with self.program.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *child_argv(self.program),
                cwd=self.program.directory,
                env=dict(self.program.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.program.sockets,
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        process = self.process
        assert process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if process.returncode is not None:
                if self.program.runs_once and process.returncode == 0:
                    return
                raise StartFailed(f"{self.program.name} {self.how_it_ended()}")
            if not self.program.runs_once and await asyncio.to_thread(self.program.ready, process.pid):
                return
            await asyncio.sleep(READY_POLL_SECONDS)
        words = last_words(self.program.log)
        raise StartFailed(f"{self.program.name} is not ready after {READY_SECONDS:.0f} s: {words}")

    def _mark_ready(self, began: float) -> None:
        self.state = "DONE" if self.program.runs_once else "READY"
        self.is_ready.set()
        self.tell(f"{self.state.lower()} after {time.monotonic() - began:.1f} s")

    async def _ended(self) -> None:
        if self.process is not None:
            pid = self.process.pid
            await self.process.wait()
            self._kill_group(pid)

    @staticmethod
    def _kill_group(pid: int) -> None:
        """What the program left behind in its process group."""
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


class Supervisor:
    def __init__(
        self,
        programs: Sequence[Program],
        reporter: Reporter,
        *,
        on_ready: Callable[[], None],
        between: Callable[[], Awaitable[None]],
        on_change: Callable[[dict[str, Any]], None] = lambda status: None,
        logs: Sequence[Path] = (),
    ) -> None:
        """`between` runs at the end, when the programs are stopped and the services still run."""
        self.keepers = {program.name: Keeper(program, reporter) for program in programs}
        self.reporter = reporter
        self.on_ready = on_ready
        self.between = between
        self.on_change = on_change
        self.logs = [program.log for program in programs] + list(logs)
        self.stop_asked = asyncio.Event()

    async def run(self) -> int:
        """Until asked to stop: 0. When the start fails: 1, after one line that says why."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=len(self.keepers) + 4))
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop_asked.set)
        try:
            if not await self._unless_stopped(self._start_all()):
                return 0
            self.on_change(self.status())
            self.on_ready()
            await self._unless_stopped(self._keep_all())
            return 0
        except StartFailed as error:
            self.reporter.tell("hearth", f"cannot start: {error}")
            return 1
        finally:
            await self.stop_all()

    async def stop_all(self) -> None:
        """Our own programs first, all at once; then engines and trainers; the services last."""
        services = [keeper for keeper in self.keepers.values() if keeper.program.is_service]
        others = [keeper for keeper in self.keepers.values() if not keeper.program.is_service]
        await asyncio.gather(*(keeper.stop() for keeper in others))
        try:
            await self.between()
        finally:
            await asyncio.gather(*(keeper.stop() for keeper in services))

    def status(self) -> dict[str, Any]:
        return {
            name: {
                "state": keeper.state,
                "pid": keeper.process.pid if keeper.process else None,
                "restarts": keeper.restarts,
            }
            for name, keeper in self.keepers.items()
        }

    async def _start_all(self) -> None:
        """All at once, each waiting for what it requires; the first failure ends the others' waiting."""
        starts = [asyncio.ensure_future(self._start(keeper)) for keeper in self.keepers.values()]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def _start(self, keeper: Keeper) -> None:
        await keeper.start([self.keepers[name] for name in keeper.program.requires])

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            for keeper in self.keepers.values():
                group.create_task(keeper.keep())

    async def _watch(self) -> None:
        """Tell the status when it has changed, and keep the logs short."""
        told: dict[str, Any] = {}
        next_log_check = 0.0
        while True:
            if (status := self.status()) != told:
                self.on_change(status)
                told = status
            if time.monotonic() >= next_log_check:
                next_log_check = time.monotonic() + LOG_CHECK_SECONDS
                for log in self.logs:
                    turn_over(log)
            await asyncio.sleep(0.5)

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Whether the work came to its end; it is given up when somebody asks to stop."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.stop_asked.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            await task
            return True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
