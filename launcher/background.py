"""The platform in the background: started, shown and stopped through its data directory."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from launcher.data_dir import DataDir
from launcher.program import StartFailed

START_SECONDS = 120.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.05
LAST_LINES = 15


def start_in_background(path: Path, host: str, port: int | None) -> int:
    """Start `hearth up` on its own and return when it is ready; the exit status."""
    data_dir = DataDir.at(path)
    try:
        data_dir.make()
    except StartFailed as error:
        return complain(str(error))
    log = data_dir.logs / "hearth.log"
    began_at = log.stat().st_size if log.exists() else 0
    process = _spawn(data_dir, host, port, log)
    if not _wait_until_ready(data_dir, process):
        tail = log.read_bytes()[began_at:].decode(errors="replace").splitlines()[-LAST_LINES:]
        sys.stderr.write(
            "\n".join([*tail, f"hearth: the platform did not start; see {data_dir.logs}"]) + "\n"
        )
        return 1
    sys.stdout.write(_what_next(data_dir))
    return 0


def stop(path: Path) -> int:
    data_dir = DataDir.at(path)
    pid = data_dir.owner()
    if pid is None:
        sys.stdout.write(f"Nothing runs on {data_dir.path}\n")
        return 0
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGTERM)
    if not select.select([process], [], [], STOP_SECONDS)[0]:
        return complain(f"pid {pid} does not stop; see {data_dir.logs}")
    sys.stdout.write(f"Stopped; everything it knows stays in {data_dir.path}\n")
    return 0


def show_status(path: Path) -> int:
    data_dir = DataDir.at(path)
    pid = data_dir.owner()
    if pid is None:
        return complain(f"nothing runs on {data_dir.path}")
    found = data_dir.read_status()
    if not found:
        sys.stdout.write(f"Starting (pid {pid})\n")
        return 0
    sys.stdout.write(f"Running at {found['url']} (pid {pid})\n")
    for name, part in found["parts"].items():
        times = f", started again {part['restarts']} times" if part["restarts"] else ""
        sys.stdout.write(f"  {name:<10} {part['state'].lower()} (pid {part['pid']}{times})\n")
    return 0


def complain(message: str) -> int:
    sys.stderr.write(f"hearth: {message}\n")
    return 1


def _spawn(data_dir: DataDir, host: str, port: int | None, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "launcher.main", "up", "--data-dir", str(data_dir.path), "--host", host]
    if port is not None:
        argv += ["--port", str(port)]
    with log.open("ab") as output:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _wait_until_ready(data_dir: DataDir, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        if data_dir.read_status().get("pid") == process.pid:
            return True
        if time.monotonic() > deadline:
            process.terminate()
            process.wait()
        time.sleep(POLL_SECONDS)
    return False


def _what_next(data_dir: DataDir) -> str:
    found = data_dir.read_status()
    env_file = _shown(data_dir.env_file)
    command_folder = _shown(Path(sys.executable).parent)
    stop = f"hearth down --data-dir {_shown(data_dir.path)}"
    return (
        f"Hearth is ready at {found['url']} (pid {found['pid']}; `{stop}` stops it)\n"
        f"The key is in {env_file}. Try next:\n\n"
        f"  source {env_file} && export PATH={command_folder}:$PATH\n"
        "  firectl create model ember quickstart/model\n"
        "  firectl create deployment ember --deployment-id ember --enable-addons --wait\n"
    )


def _shown(path: Path) -> str:
    """As short as it can be typed here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
