"""Becomes a command: the last moments between the supervisor and what it starts.

    python -I -S child.py PARENT_PID DEATH_SIGNAL USER SEARCH COMMAND...

The command gets DEATH_SIGNAL when the supervisor dies, however it dies. USER is "-", or "uid:gid" to step
down to. With SEARCH "1" that user may still walk through folders that are closed to it: the data directory
may stand below one that only root can enter. Little of the standard library and nothing else: this runs
before every command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    parent, death_signal, user, search, *command = sys.argv[1:]
    try:
        if user != "-":
            step_down(user, keep_search=search == "1")
        # After the change of user, which clears it.
        _call("prctl", PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit(1)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.execve(command[0], command, os.environ)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.exit(126)


def step_down(user: str, *, keep_search: bool) -> None:
    """Become an ordinary user for good, with at most the right to walk through closed folders."""
    uid, gid = (int(part) for part in user.split(":"))
    capability = _search_capability() if keep_search else None
    if capability is not None:
        _call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability is not None:
        _keep_only(capability)


def _search_capability() -> int:
    """The narrowest of our capabilities that opens closed folders."""
    with open("/proc/self/status", encoding="ascii") as status:
        permitted = next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm:"))
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if permitted & (1 << capability):
            return capability
    raise PermissionError(1, "its folder is below one that only root can enter; choose another place")


def _keep_only(capability: int) -> None:
    bit = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    # Effective, permitted, inheritable, of the lower and then of the upper 32 capabilities.
    data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    _call("capset", header, data)
    _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
