"""The supervisor with small real processes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.program import Program, StartFailed
from launcher.reporter import Reporter
from launcher.supervisor import Supervisor
from tests.launcher.programs import is_alive, processes_of, wait_until

Make = Callable[..., Program]


class Run:
    """A supervisor at work, with what it said."""

    def __init__(self, folder: Path, *programs: Program) -> None:
        self.folder = folder
        self.told = io.StringIO()
        self.became_ready = asyncio.Event()
        self.supervisor = Supervisor(
            programs,
            Reporter(self.told),
            on_ready=self.became_ready.set,
            between=self.between,
        )
        self.task = asyncio.ensure_future(self.supervisor.run())

    async def between(self) -> None:
        with (self.folder / "events").open("a") as events:
            events.write("between\n")

    async def ready(self) -> None:
        await asyncio.wait(
            {self.task, asyncio.ensure_future(self.became_ready.wait())}, return_when="FIRST_COMPLETED"
        )
        assert not self.task.done(), self.told.getvalue()

    async def stop(self) -> int:
        self.supervisor.stop_asked.set()
        return await self.task

    def events(self) -> list[str]:
        return (self.folder / "events").read_text().splitlines()

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())


async def test_a_program_waits_for_those_that_it_requires(tmp_path: Path, program: Make) -> None:
    run = Run(tmp_path, program("second", requires=("first",)), program("first"))
    await run.ready()
    assert run.events() == ["started first", "started second"]
    assert await run.stop() == 0


async def test_a_program_that_runs_once_comes_before_those_that_require_it(
    tmp_path: Path, program: Make
) -> None:
    run = Run(
        tmp_path, program("part", requires=("setup",)), program("setup", "note('done')", runs_once=True)
    )
    await run.ready()
    assert run.events() == ["done setup", "started part"]
    assert run.supervisor.status()["setup"]["state"] == "DONE"
    await run.stop()


async def test_the_end_is_parts_then_leftovers_then_services(tmp_path: Path, program: Make) -> None:
    run = Run(tmp_path, program("service", is_service=True), program("part"))
    await run.ready()
    assert await run.stop() == 0
    assert run.events()[-3:] == ["stopped part", "between", "stopped service"]
    assert processes_of(tmp_path) == []


async def test_a_program_that_dies_is_started_again(tmp_path: Path, program: Make) -> None:
    run = Run(tmp_path, program("part"))
    await run.ready()
    first = run.pid("part")
    os.kill(first, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: run.pid("part") != first, "it runs again")
    assert run.supervisor.status()["part"]["restarts"] == 1
    assert "was killed by SIGKILL" in run.told.getvalue()
    await run.stop()


async def test_what_a_dead_program_left_in_its_group_goes_before_it_is_started_again(
    tmp_path: Path, program: Make
) -> None:
    code = "child = os.fork()\nif not child: signal.pause()\nopen('child', 'w').write(str(child))\nserve()"
    run = Run(tmp_path, program("part", code))
    await run.ready()
    orphan = int((tmp_path / "child").read_text())
    os.kill(run.pid("part"), signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: not is_alive(orphan), "the orphan is gone")
    await run.stop()


async def test_a_program_that_does_not_start_ends_the_start_with_its_own_last_words(
    tmp_path: Path, program: Make
) -> None:
    broken = program("broken", "sys.exit('ERROR: no space left')", requires=("service",))
    run = Run(tmp_path, program("service", is_service=True), broken)
    assert await run.task == 1
    last_line = run.told.getvalue().splitlines()[-1]
    assert last_line.endswith("hearth     cannot start: broken exited with 1: ERROR: no space left")
    assert processes_of(tmp_path) == []


async def test_a_preparation_that_fails_ends_the_start(tmp_path: Path, program: Make) -> None:
    def prepare() -> None:
        raise StartFailed("initdb failed")

    run = Run(tmp_path, program("service", prepare=prepare))
    assert await run.task == 1
    assert "cannot start: initdb failed" in run.told.getvalue()


async def test_a_command_that_is_not_there_is_named(tmp_path: Path, program: Make) -> None:
    run = Run(tmp_path, program("part", argv=("/nowhere/weed", "mini")))
    assert await run.task == 1
    assert "cannot start /nowhere/weed: No such file or directory" in run.told.getvalue()


async def test_a_program_that_ignores_the_request_to_stop_is_killed(tmp_path: Path, program: Make) -> None:
    deaf = "stop = lambda *_: None\nserve()"
    run = Run(tmp_path, program("part", deaf, stop_seconds=0.2))
    await run.ready()
    assert await run.stop() == 0
    assert "does not stop within" in run.told.getvalue()
    assert processes_of(tmp_path) == []


async def test_stopping_during_the_start_leaves_nothing(tmp_path: Path, program: Make) -> None:
    run = Run(tmp_path, program("first"), program("never", "signal.pause()"))
    await asyncio.to_thread(wait_until, (tmp_path / "first.pid").exists, "the first one runs")
    assert await run.stop() == 0
    assert processes_of(tmp_path) == []


def test_programs_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(SUPERVISE_ONE_SLEEPER.format(folder=str(tmp_path)))
    supervisor = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    try:
        wait_until((tmp_path / "pid").exists, "the program runs")
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: processes_of(tmp_path) == [], "the program is gone")


SUPERVISE_ONE_SLEEPER = """
import asyncio, os, sys
from pathlib import Path
from launcher.program import Program
from launcher.reporter import Reporter
from launcher.supervisor import Supervisor

folder = Path({folder!r})
code = "import os, signal; open('pid', 'w').write(str(os.getpid())); signal.signal(15, 1); signal.pause()"
argv = (sys.executable, "-c", code)
sleeper = Program("sleeper", argv, os.environ, folder, folder / "log", lambda pid: True)

async def main():
    nothing = lambda: asyncio.sleep(0)
    await Supervisor([sleeper], Reporter(), on_ready=lambda: None, between=nothing).run()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_every_usual_signal_stops_it(tmp_path: Path, program: Make, number: signal.Signals) -> None:
    run = Run(tmp_path, program("part"))
    await run.ready()
    os.kill(os.getpid(), number)
    assert await run.task == 0
    assert run.events()[-1] == "between"
