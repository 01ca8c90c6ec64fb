"""Long processes, with real small ones: they outlive starters, leave nothing, and say how they ended."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.runtimes import process, process_shim
from workers.runtimes.process import (
    ProcessOver,
    ProcessState,
    log_tail,
    observe_process,
    read_log,
    remove_process,
    start_process,
    stop_process,
)

Until = Callable[..., None]
Pids = Callable[[Path], list[int]]

SLEEP = "import time; print('up'); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
# A child in the group, and a grandchild that left group and session behind, as daemons do.
FAMILY = """
import os, subprocess, sys, time
sleep = [sys.executable, '-c', 'import time; time.sleep(600)']
stray = (
    "import subprocess, sys\\n"
    "print('stray', subprocess.Popen(sys.argv[1:], start_new_session=True).pid)"
)
print('child', subprocess.Popen(sleep).pid)
subprocess.run([sys.executable, '-c', stray, *sleep])
print('up')
time.sleep(600)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def state_of(directory: Path) -> ProcessState:
    return observe_process(directory).state


def said(directory: Path, text: str) -> Callable[[], bool]:
    return lambda: text in log_tail(directory)


def ended(directory: Path) -> Callable[[], bool]:
    return lambda: state_of(directory) not in {ProcessState.RUNNING, ProcessState.ABSENT}


def is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def numbers_in_log(directory: Path) -> list[int]:
    return [
        int(line.split()[1]) for line in log_tail(directory).splitlines() if line[:5] in {"child", "stray"}
    ]


def test_a_process_runs_in_its_directory_with_its_environment_and_reports_its_exit(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    assert state_of(directory) is ProcessState.ABSENT
    code = (
        "import os, sys; print(os.getcwd(), os.environ['FLAG']); print('oops', file=sys.stderr); sys.exit(3)"
    )
    start_process(directory, python(code), environ | {"FLAG": "on"})
    until(ended(directory))
    seen = observe_process(directory)
    assert (seen.state, seen.exit_code, seen.signal, seen.stopped) == (ProcessState.EXITED, 3, None, False)
    assert log_tail(directory).splitlines() == [f"{directory} on", "oops"]


def everything_written(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.rglob("*") if path.is_file())


def test_a_secret_of_somebody_else_s_is_in_no_file_and_not_where_the_process_reads(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    code = (
        "import os, sys, time; print(len(os.environ['THEIR_KEY']), sys.stdin.read() == '', flush=True)\n"
        "time.sleep(60)"
    )
    start_process(directory, python(code), environ | {"THEIR_KEY": "k3y-of-9-1"}, secrets=["THEIR_KEY"])
    until(lambda: log_tail(directory) == "10 True")
    assert "k3y-of-9-1" not in everything_written(directory)
    stop_process(directory, 1.0)
    until(ended(directory))


def test_a_secret_stays_in_no_file_where_the_shim_dies_before_it_begins(
    directory: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shim = tmp_path / "shim.py"
    shim.write_text("")
    monkeypatch.setattr(process, "SHIM", shim)
    start_process(directory, python(SLEEP), environ | {"THEIR_KEY": "k3y-of-9-1"}, secrets=["THEIR_KEY"])
    assert state_of(directory) is ProcessState.LOST
    assert "k3y-of-9-1" not in everything_written(directory)


def test_a_process_that_a_signal_ends_reports_the_signal(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    start_process(directory, python("import os; os.kill(os.getpid(), 11)"), environ)
    until(ended(directory))
    seen = observe_process(directory)
    assert (seen.exit_code, seen.signal, seen.stopped) == (None, signal.SIGSEGV, False)


def test_a_command_that_does_not_exist_exits_with_a_reason(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    start_process(directory, ["/no/such/program"], environ)
    until(ended(directory))
    assert observe_process(directory).exit_code == 127
    assert log_tail(directory) == "cannot start /no/such/program: No such file or directory"


def test_starting_again_while_it_runs_changes_nothing(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    start_process(directory, python(SLEEP), environ)
    start_process(directory, python("print('second')"), environ)
    until(said(directory, "up"))
    assert "second" not in log_tail(directory)


def test_of_many_starters_at_once_one_starts_it(
    directory: Path, environ: dict[str, str], until: Until, alive: Pids
) -> None:
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        start_process(directory, python(SLEEP), environ)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(said(directory, "up"))
    assert log_tail(directory) == "up"
    assert len(alive(directory)) == 3, "a guard, a monitor and the command"


def test_looking_at_it_never_keeps_a_starter_from_starting(
    tmp_path: Path, environ: dict[str, str], until: Until
) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for number in range(5):
                observe_process(tmp_path / str(number))

    watchers = [threading.Thread(target=look) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for number in range(5):
        start_process(tmp_path / str(number), python("pass"), environ)
    for number in range(5):
        until(lambda number=number: state_of(tmp_path / str(number)) is ProcessState.EXITED)
    over.set()
    for watcher in watchers:
        watcher.join()


def test_the_end_of_its_starter_does_not_end_it(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    code = (
        "import sys; from pathlib import Path; from workers.runtimes.process import start_process\n"
        "start_process(Path(sys.argv[1]), sys.argv[2:], {})"
    )
    root = Path(process_shim.__file__).parents[2]
    subprocess.run([*python(code), str(directory), *python(SLEEP)], cwd=root, check=True)
    until(said(directory, "up"))
    assert state_of(directory) is ProcessState.RUNNING


def test_a_directory_is_one_lifetime(directory: Path, environ: dict[str, str], until: Until) -> None:
    start_process(directory, python("pass"), environ)
    until(ended(directory))
    with pytest.raises(ProcessOver):
        start_process(directory, python("pass"), environ)


def test_stop_lets_it_end_by_itself(directory: Path, environ: dict[str, str], until: Until) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(143)))\n"
        "print('up'); time.sleep(600)"
    )
    start_process(directory, python(code), environ)
    until(said(directory, "up"))
    stop_process(directory, 60)
    until(ended(directory))
    seen = observe_process(directory)
    assert (seen.state, seen.exit_code, seen.stopped) == (ProcessState.EXITED, 143, True)
    assert log_tail(directory).endswith("bye")


def test_stop_kills_what_will_not_end(directory: Path, environ: dict[str, str], until: Until) -> None:
    start_process(directory, python(STUBBORN), environ)
    until(said(directory, "up"))
    stop_process(directory, 0.1)
    until(ended(directory))
    seen = observe_process(directory)
    assert (seen.signal, seen.stopped) == (signal.SIGKILL, True)


def test_a_later_stop_shortens_the_grace(directory: Path, environ: dict[str, str], until: Until) -> None:
    start_process(directory, python(STUBBORN), environ)
    until(said(directory, "up"))
    stop_process(directory, 3600)
    stop_process(directory, 0)
    until(ended(directory))


def test_stop_sends_sigterm_to_the_command_alone(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    """A trainer's data loaders must not die under it while it writes its checkpoint."""
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('child hit')); time.sleep(600)"
    )
    code = (
        "import signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-u', '-c', {child!r}])\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('hit', child.poll()), sys.exit(0)))\n"
        "print('up'); time.sleep(600)"
    )
    start_process(directory, python(code), environ)
    until(said(directory, "up"))
    stop_process(directory, 60)
    until(ended(directory))
    assert log_tail(directory).splitlines() == ["up", "hit None"]


def test_stop_before_start_keeps_it_from_ever_starting(directory: Path, environ: dict[str, str]) -> None:
    stop_process(directory, 10)
    assert state_of(directory) is ProcessState.ABSENT
    with pytest.raises(ProcessOver):
        start_process(directory, python(SLEEP), environ)


def test_stop_right_after_start_is_not_lost(directory: Path, environ: dict[str, str], until: Until) -> None:
    start_process(directory, python(SLEEP), environ)
    stop_process(directory, 5)
    until(ended(directory))
    assert observe_process(directory).stopped


def test_sigterm_to_the_shim_is_a_stop(
    directory: Path, environ: dict[str, str], until: Until, shim_pids: Pids
) -> None:
    start_process(directory, python(SLEEP), environ)
    until(said(directory, "up"))
    os.kill(shim_pids(directory)[0], signal.SIGTERM)
    until(ended(directory))
    seen = observe_process(directory)
    assert (seen.state, seen.signal, seen.stopped) == (ProcessState.EXITED, signal.SIGTERM, True)


def test_nothing_is_left_after_the_command_ends(
    directory: Path, environ: dict[str, str], until: Until, alive: Pids
) -> None:
    start_process(directory, python(FAMILY), environ)
    until(said(directory, "up"))
    stop_process(directory, 5)
    until(ended(directory))
    assert all(is_gone(pid) for pid in numbers_in_log(directory))
    until(lambda: alive(directory) == [])


@pytest.mark.parametrize("victim", ["guard", "monitor"])
def test_killing_one_half_of_the_shim_leaves_nothing_unsupervised(
    directory: Path, environ: dict[str, str], until: Until, alive: Pids, shim_pids: Pids, victim: str
) -> None:
    start_process(directory, python(FAMILY), environ)
    until(said(directory, "up"))
    guard, monitor = shim_pids(directory)
    os.kill(guard if victim == "guard" else monitor, signal.SIGKILL)
    if victim == "guard":
        assert state_of(directory) is ProcessState.RUNNING, "the monitor goes on alone"
        stop_process(directory, 5)
        until(lambda: state_of(directory) is ProcessState.EXITED)
    else:
        until(lambda: state_of(directory) is ProcessState.LOST)
    assert all(is_gone(pid) for pid in numbers_in_log(directory))
    until(lambda: alive(directory) == [])


def test_killing_both_halves_kills_the_command_and_stop_ends_what_it_left(
    directory: Path, environ: dict[str, str], until: Until, alive: Pids, shim_pids: Pids
) -> None:
    start_process(directory, python(FAMILY), environ)
    until(said(directory, "up"))
    for pid in shim_pids(directory):
        os.kill(pid, signal.SIGKILL)
    until(lambda: state_of(directory) is ProcessState.LOST)
    stop_process(directory, 5)
    until(lambda: alive(directory) == [])
    with pytest.raises(ProcessOver):
        start_process(directory, python(SLEEP), environ)
    for pid in numbers_in_log(directory):  # One left its session: only both kills at once set it free.
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_machine_that_died_in_between_is_lost(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    directory.mkdir()
    (directory / "command.json").write_text("{}")
    (directory / "session").write_text(str(os.getsid(0)))  # The number means something else by now.
    assert state_of(directory) is ProcessState.LOST
    stop_process(directory, 5)
    assert remove_process(directory)
    assert state_of(directory) is ProcessState.ABSENT


def test_it_stops_when_its_supervisor_is_gone(
    tmp_path: Path, directory: Path, environ: dict[str, str], until: Until
) -> None:
    lock = tmp_path / "supervisor.lock"
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start_process(directory, python(SLEEP), environ | {"HEARTH_SUPERVISOR_LOCK": str(lock)})
        until(said(directory, "up"))
        assert state_of(directory) is ProcessState.RUNNING
    until(ended(directory))
    seen = observe_process(directory)
    assert (seen.state, seen.stopped) == (ProcessState.EXITED, True)


def test_the_log_keeps_its_last_part_and_stays_small(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    code = "for n in range(120_000): print(n, 'x' * 100)"
    start_process(directory, python(code), environ)
    until(ended(directory), 120)
    assert log_tail(directory, 1).startswith("119999 ")
    kept = sum(path.stat().st_size for path in directory.glob("log*.txt"))
    assert process_shim.LOG_BYTES < kept <= 2 * process_shim.LOG_BYTES


def test_the_log_can_be_read_on_from_any_place_however_often_it_turned_over(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    lines = [f"{number} {'x' * 100}\n".encode() for number in range(70_000)]
    code = "import sys; sys.stdout.write(''.join(f'{n} ' + 'x' * 100 + '\\n' for n in range(70_000)))"
    start_process(directory, python(code), environ)
    until(ended(directory), 120)
    begins, text = read_log(directory, 0, 1000)
    assert 0 < begins < len(b"".join(lines)) - process_shim.LOG_BYTES
    while piece := read_log(directory, begins + len(text), 1 << 20)[1]:
        text += piece
    assert text == b"".join(lines)[begins:]


def test_a_short_log_is_read_from_where_one_likes(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    assert read_log(directory, 5, 10) == (5, b"")
    start_process(directory, python("print('hello world', end='')"), environ)
    until(ended(directory))
    assert read_log(directory, 0, 5) == (0, b"hello")
    assert read_log(directory, 6, 100) == (6, b"world")
    assert read_log(directory, 11, 100) == (11, b"")


def test_a_log_that_cannot_be_written_stops_nothing(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    directory.mkdir()
    (directory / "log.txt").symlink_to("/dev/full")
    code = "import sys\nfor n in range(50_000): print(n, 'x' * 50)\nsys.exit(7)"
    start_process(directory, python(code), environ)
    until(ended(directory), 120)
    assert observe_process(directory).exit_code == 7


def test_the_exit_record_needs_no_new_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process_shim.reserve_exit_record(tmp_path)
    before = (tmp_path / "exit.tmp").stat()
    process_shim.write_exit_record(tmp_path, 0, None, False)
    after = (tmp_path / "exit.json").stat()
    assert (after.st_ino, after.st_blocks) == (before.st_ino, before.st_blocks)
    assert json.loads((tmp_path / "exit.json").read_text())["exit_code"] == 0


def test_a_stop_gets_through_on_a_full_disk(
    directory: Path, environ: dict[str, str], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_process(directory, python(SLEEP), environ)
    until(said(directory, "up"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workers.runtimes.process.write_json", full)
    stop_process(directory, 5)
    until(ended(directory))
    assert observe_process(directory).stopped


def test_secrets_in_its_environment_are_for_its_user_only(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    start_process(directory, python("pass"), environ | {"TOKEN": "secret"})
    assert (directory / "command.json").stat().st_mode & 0o077 == 0
    assert directory.stat().st_mode & 0o077 == 0
    until(ended(directory))


def test_a_running_process_keeps_its_directory(
    directory: Path, environ: dict[str, str], until: Until
) -> None:
    start_process(directory, python(SLEEP), environ)
    assert not remove_process(directory)
    stop_process(directory, 0)
    until(ended(directory))
    until(lambda: remove_process(directory))
    assert not directory.exists()
