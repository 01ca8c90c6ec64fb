"""How the parent of several processes judges their end. The processes here are small scripts of our own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from workers.training.__main__ import main
from workers.training.errors import EXIT_OUTAGE
from workers.training.running.ranks import Ended, started_ranks
from workers.training.running.tracking import KEY_VARIABLE

WAITS = "import time; time.sleep(600)"
FAILS = "import json, os, sys; {said}; sys.exit(1)"
CHOOSER = "import os, runpy, sys; runpy.run_path(os.path.join(sys.argv[1], os.environ['RANK'] + '.py'))"
BLAMED = {"reason": "BAD_ROW"}


def says(result: object) -> str:
    """Leaves a result as its rank's, then fails."""
    where = "os.path.join(sys.argv[1], 'failure-' + os.environ['RANK'] + '.json')"
    return FAILS.format(said=f"open({where}, 'w').write({json.dumps(json.dumps(result))})")


def end_of(folder: Path, *scripts: str) -> Ended:
    """Run one script a rank, and wait for their end."""
    for rank, script in enumerate(scripts):
        (folder / f"{rank}.py").write_text(script)
    with started_ranks([sys.executable, "-c", CHOOSER, str(folder)], len(scripts), folder) as ranks:
        return ranks.wait()


@pytest.mark.parametrize(
    ("scripts", "ended"),
    [
        (("", ""), Ended(0, 0)),
        # The first has done all that was to do.
        (("", WAITS), Ended(0, 0)),
        (("import sys; sys.exit(143)", WAITS), Ended(0, 143)),
        ((WAITS, says(BLAMED)), Ended(1, 1, BLAMED)),
        ((says(BLAMED), WAITS), Ended(0, 1, BLAMED)),
        # An outage is nobody's fault, whatever it does to the others.
        ((f"import sys; sys.exit({EXIT_OUTAGE})", says(BLAMED)), Ended(0, EXIT_OUTAGE)),
        ((WAITS, f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"), Ended(1, -signal.SIGKILL)),
        (("import sys; sys.exit(1)", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"),
         Ended(1, -signal.SIGKILL)),
    ],
)  # fmt: skip
def test_the_one_that_caused_the_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: tuple[str, ...], ended: Ended
) -> None:
    monkeypatch.setattr("workers.training.running.ranks.LAST_WORDS_SECONDS", 0.5)
    assert end_of(tmp_path, *scripts) == ended


def test_who_fails_only_because_its_partner_was_stopped_does_not_fail_the_job(tmp_path: Path) -> None:
    ready = "import os, sys, time, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(%d)); "
    told = "open(os.path.join(sys.argv[1], 'up-' + os.environ['RANK']), 'w').close(); time.sleep(600)"
    slow = "import atexit, time; atexit.register(time.sleep, 0.5); "  # As libraries take their time to end.
    for rank, script in enumerate((slow + ready % 143 + told, ready % 1 + told)):
        (tmp_path / f"{rank}.py").write_text(script)
    with started_ranks([sys.executable, "-c", CHOOSER, str(tmp_path)], 2, tmp_path) as ranks:
        while len(list(tmp_path.glob("up-*"))) < 2:
            time.sleep(0.02)
        ranks.stop()
        assert ranks.wait() == Ended(0, 143)


def test_the_key_of_a_log_is_out_of_the_environment_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")

    assert main([]) == 2

    assert KEY_VARIABLE not in os.environ
    assert "usage" in capsys.readouterr().err


def test_only_the_process_that_logs_has_the_key(tmp_path: Path) -> None:
    tells = (
        f"import os; print(os.environ.get({KEY_VARIABLE!r}), file=open('told-' + os.environ['RANK'], 'w'))"
    )
    argv = [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {tells}"]
    with started_ranks(argv, 3, tmp_path, {KEY_VARIABLE: "secret"}) as ranks:
        assert ranks.wait() == Ended(0, 0)

    assert [(tmp_path / f"told-{rank}").read_text().strip() for rank in range(3)] == [
        "secret",
        "None",
        "None",
    ]
