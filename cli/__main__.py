"""Where firectl starts: its imports take a moment, and Ctrl-C may come while they are under way."""

import signal
import sys
from types import FrameType


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _end)
    try:
        from cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Error: stopped\n")
        sys.exit(130)
    run()


def _end(number: int, _frame: FrameType | None) -> None:
    """As Ctrl-C does: what was opened is closed, and the terminal gets its cursor back."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
