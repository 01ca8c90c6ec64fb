"""The main job from nothing to a fine-tuned model that answers, with the commands that a user would type.

Starts a platform of its own in a new folder, uploads the small base model, tunes it, deploys both, asks them
the same held-out questions, prints how long each stage took, and stops everything. Exits 0, or 1 and says
which stage failed and why.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quickstart.compare import compare, load_held_out

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent

BASE_MODEL = "ember"
TUNED_MODEL = "ember-tickets"
DATASET = "tickets"
DEPLOYMENT = "ember"

LOWEST_TUNED_SCORE = 0.95
HIGHEST_BASE_SCORE = 0.05
READY_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 40


class StageFailed(Exception):
    """A stage that did not do what it is there for; the message says what it did instead."""


@dataclass
class Report:
    """How long each stage took."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    current: str = ""

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        self.current = title
        print(f"\n\033[1m== {title}\033[0m" if sys.stdout.isatty() else f"\n== {title}", flush=True)
        started = time.monotonic()
        yield
        self.seconds.append((title, time.monotonic() - started))

    def table(self) -> str:
        rows = [*self.seconds, ("total", sum(seconds for _, seconds in self.seconds))]
        width = max(len(title) for title, _ in rows)
        return "\n".join(f"  {title:<{width}}  {seconds:7.1f} s" for title, seconds in rows)


@dataclass(frozen=True)
class Platform:
    """The running platform's address and key, as its `env` file gives them."""

    process: subprocess.Popen[str]
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return self.environment["FIREWORKS_BASE_URL"]

    @property
    def key(self) -> str:
        return self.environment["FIREWORKS_API_KEY"]

    @property
    def account(self) -> str:
        return self.environment["FIREWORKS_ACCOUNT_ID"]


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, interrupted)
    report = Report()
    data_dir = Path(arguments.data_dir or tempfile.mkdtemp(prefix="hearth-quickstart-"))
    platform: Platform | None = None
    failure = ""
    try:
        with report.stage("start the platform"):
            platform = start_platform(data_dir)
        main_job(platform, report)
    except StageFailed as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    finally:
        if platform is not None:
            stop_platform(platform.process)
    return conclude(report, failure, data_dir, keep=arguments.keep or bool(arguments.data_dir))


def interrupted(*_: object) -> None:
    """End as Ctrl-C does: what was started is stopped."""
    raise KeyboardInterrupt


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m quickstart.run", description=__doc__)
    parser.add_argument("--data-dir", help="keep the platform's data here; a temporary folder when not given")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder after a success, too")
    return parser.parse_args()


def main_job(platform: Platform, report: Report) -> None:
    """Base model, dataset, fine-tuning, deployment, deployed addon, and the comparison."""
    account = platform.account
    with report.stage("upload the base model"):
        firectl(platform, "create", "model", BASE_MODEL, str(HERE / "model"))
    with report.stage("upload the dataset"):
        firectl(platform, "create", "dataset", DATASET, str(HERE / "data" / "train.jsonl"))
    with report.stage("fine-tune with LoRA"):
        firectl(
            platform,
            *("create", "fine-tuning-job", "--settings-file", str(HERE / "job.yaml")),
            *("--base-model", f"accounts/{account}/models/{BASE_MODEL}", "--dataset", DATASET),
            *("--model-id", TUNED_MODEL, "--wait"),
        )
    with report.stage("deploy the base model"):
        firectl(
            platform,
            *("create", "deployment", BASE_MODEL, "--deployment-id", DEPLOYMENT, "--enable-addons", "--wait"),
        )
    with report.stage("load the tuned model"):
        firectl(platform, "deploy", TUNED_MODEL, "--deployment-id", DEPLOYMENT, "--wait")
    with report.stage("ask both"):
        ask_both(platform)


def ask_both(platform: Platform) -> None:
    models = {
        "base": f"accounts/{platform.account}/models/{BASE_MODEL}",
        "tuned": f"accounts/{platform.account}/models/{TUNED_MODEL}",
    }
    rows = load_held_out(HERE / "data" / "heldout.jsonl")
    scores = compare(platform.url, platform.key, models, rows)
    print(
        f"\nexact match on {len(rows)} held-out prompts: "
        f"base {scores['base']:.3f}, tuned {scores['tuned']:.3f}"
    )
    if scores["tuned"] < LOWEST_TUNED_SCORE:
        raise StageFailed(f"the tuned model's exact match is below {LOWEST_TUNED_SCORE}")
    if scores["base"] > HIGHEST_BASE_SCORE:
        raise StageFailed(
            f"the base model's exact match is above {HIGHEST_BASE_SCORE}: there was nothing to learn"
        )


def start_platform(data_dir: Path) -> Platform:
    """Start `hearth up` and wait for its one ready line."""
    command = ["hearth", "up", "--data-dir", str(data_dir)]
    print(f"$ {shlex.join(command)}", flush=True)
    process = subprocess.Popen(
        [str(BIN / "hearth"), *command[1:]], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        ready = wait_for_line(process)
    except BaseException:
        stop_platform(process)
        raise
    print(ready, flush=True)
    return Platform(process, read_env(data_dir / "env"))


def wait_for_line(process: subprocess.Popen[str]) -> str:
    """The first line that the platform prints; it prints one when it is ready."""
    assert process.stdout is not None
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(READY_TIMEOUT_SECONDS)
    try:
        line = process.stdout.readline()
    finally:
        signal.alarm(0)
    if not line:
        raise StageFailed(f"hearth up ended with status {process.wait()}; its messages are above")
    return line.rstrip()


def _too_slow(*_: object) -> None:
    raise StageFailed(f"hearth up was not ready within {READY_TIMEOUT_SECONDS} s")


def read_env(path: Path) -> dict[str, str]:
    """The variables of a file of `export NAME=value` lines."""
    lines = (line.removeprefix("export ") for line in path.read_text().splitlines() if "=" in line)
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}


def stop_platform(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def firectl(platform: Platform, *arguments: str) -> None:
    """Run one `firectl` command as a user would, its output passing straight through."""
    shown = [str(Path(part).relative_to(Path.cwd())) if _is_here(part) else part for part in arguments]
    print(f"$ firectl {shlex.join(shown)}", flush=True)
    environment = {**os.environ, **platform.environment}
    done = subprocess.run([str(BIN / "firectl"), *arguments], env=environment, check=False)
    if done.returncode:
        raise StageFailed(f"firectl {shlex.join(shown)} exited with {done.returncode}; its message is above")


def _is_here(part: str) -> bool:
    return part.startswith("/") and Path(part).is_relative_to(Path.cwd())


def conclude(report: Report, failure: str, data_dir: Path, *, keep: bool) -> int:
    print(f"\nHow long each stage took:\n{report.table()}", flush=True)
    if failure:
        print(f"\nfailed at the stage «{report.current}»: {failure}", file=sys.stderr)
        print(f"the platform's logs are in {data_dir / 'logs'}", file=sys.stderr)
        return 1
    if keep:
        print(f"\nThe platform's data is in {data_dir}: hearth up --data-dir {data_dir}")
    else:
        shutil.rmtree(data_dir, ignore_errors=True)
    print("\nNext: make up, then firectl list models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
