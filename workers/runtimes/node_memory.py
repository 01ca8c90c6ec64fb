"""How much memory the machine, or the container around us, has left.

The process shim runs this file by itself: it needs nothing but the standard library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
KIB = 1024


class Memory(TypedDict):
    total: int
    available: int
    """Bytes."""
    oom_kills: int
    """How often the kernel has killed for want of memory, since it started."""


def memory_now(proc: Path = PROC, cgroup: Path = CGROUP) -> Memory:
    """The tighter of what the machine and what the container has; zeros where nothing can be read."""
    lines = _read(proc / "meminfo").splitlines()
    sizes = {name: int(rest.split()[0]) * KIB for name, _, rest in (line.partition(":") for line in lines)}
    total, available = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit() and int(limit) < (total or int(limit) + 1):
        total, available = int(limit), min(available, max(0, int(limit) - int(used) + _given_back(cgroup)))
    kills = max(_counted(proc / "vmstat"), _counted(cgroup / "memory.events"))
    return {"total": total, "available": available, "oom_kills": kills}


def _given_back(cgroup: Path) -> int:
    """Bytes of files that were read or written: counted as used, and given up as soon as they are wanted."""
    pairs = (line.split() for line in _read(cgroup / "memory.stat").splitlines())
    return sum(int(pair[1]) for pair in pairs if pair[0] in ("inactive_file", "active_file"))


def _counted(path: Path) -> int:
    pairs = (line.split() for line in _read(path).splitlines())
    return next((int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == "oom_kill"), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
