"""Log files of bounded size: the last of them, and what came before."""

from __future__ import annotations

import shutil
from pathlib import Path

LOG_BYTES = 32 * 1024 * 1024


def turn_over(log: Path, limit: int = LOG_BYTES) -> None:
    """Move what a log holds into `<name>.1` once it is too long.

    Its writer keeps the file open for appending, so the file is emptied, not replaced. On a full disk what it
    held is lost: the space is needed more.
    """
    if not log.exists() or log.stat().st_size <= limit:
        return
    try:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
    except OSError:
        log.with_name(log.name + ".1").unlink(missing_ok=True)
    with log.open("r+b") as file:
        file.truncate(0)
