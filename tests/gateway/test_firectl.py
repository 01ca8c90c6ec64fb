"""firectl's chat and complete through the real gateway, in a pipe and at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.serving import wait_until

FIRECTL = str(Path(sys.executable).parent / "firectl")
SECONDS = 20.0
PROMPT = r"\[\?2004h[^>]*>"  # pastes are told apart from typing, and it is drawn


@pytest.fixture
def environment(served, tmp_path):
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "FIREWORKS_BASE_URL": served.running.url,
        "FIREWORKS_API_KEY": served.key,
        "FIREWORKS_ACCOUNT_ID": "acme",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "TERM": "xterm",
    }


@pytest.fixture
def firectl(environment):
    def run(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FIRECTL, *argv],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


class Terminal:
    """A program on a terminal of its own, as a person sees and types it."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.shown = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, pattern: str, after: int = 0) -> int:
        """Reads until the pattern is seen behind a place; the place behind it."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.compile(pattern).search(self.shown, after)):
            assert time.monotonic() < deadline, f"{pattern!r} did not come:\n{self.shown}"
            if select.select([self._master], [], [], 0.1)[0]:
                self.shown += self._read()
        return found.end()

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode("utf-8", "replace")
        except OSError:  # the program has gone
            assert self.process.wait(SECONDS) is not None
            return ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        os.close(self._master)


@pytest.fixture
def terminal(environment) -> Iterator[Callable[..., Terminal]]:
    opened = []

    def start(*argv: str) -> Terminal:
        opened.append(Terminal([FIRECTL, *argv], environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_a_pipe_gets_the_answer_and_nothing_else(firectl, served):
    ran = firectl("chat", "llama", "--system", "Be brief.", stdin="Count\nto three.\n")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "one two three\n", "")
    body = served.engine.bodies[-1]
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "Count\nto three."]
    continued = firectl("complete", "tuned", "count", "--verbose", "--max-tokens", "9", "--temperature=0")
    assert continued.stdout == "one two three\n"
    assert "(7 tokens asked, 3 answered" in continued.stderr
    assert served.engine.bodies[-1]["max_tokens"] == 9


@pytest.mark.parametrize(
    "model",
    [
        ["accounts/acme/models/tuned"],
        ["acme/tuned"],
        ["tuned#main"],
        ["accounts/acme/models/tuned#accounts/acme/deployments/main"],
        ["tuned", "--deployment", "main"],
        ["accounts/acme/deployedModels/tuned-1"],
        ["tuned-1"],
    ],
)
def test_a_model_is_found_by_each_of_its_names(firectl, served, model):
    ran = firectl("chat", *model, "-m", "count")
    assert (ran.returncode, ran.stdout) == (0, "one two three\n"), ran.stderr
    assert served.engine.bodies[-1]["model"] == "addon-uid"


def test_json_is_the_response_as_it_is(firectl, served):
    ran = firectl("chat", "llama", "-m", "count", "-o", "json")
    assert '"object": "chat.completion"' in ran.stdout
    assert '"content": "one two three"' in ran.stdout


def test_a_mistyped_model_is_corrected(firectl, served):
    ran = firectl("chat", "lama", "-m", "count")
    assert ran.returncode == 1
    assert "there is no model acme/lama that you can ask" in ran.stderr
    assert "did you mean llama?" in ran.stderr


def test_a_deployment_without_replicas_is_told(firectl, served):
    base = served.world.add_base("acme", "cold")
    deployment = served.world.add_deployment("acme", "icy", base, state="CREATING", status_message="starting")
    served.world.load("acme", "cold-1", base, deployment)
    served.running.until_routed(lambda gateway: ("acme", "cold") in gateway.snapshot.by_model)
    ran = firectl("chat", "cold", "-m", "count")
    assert ran.returncode == 1
    assert "accounts/acme/deployments/icy has no ready replica for the model: starting" in ran.stderr
    assert "Next: firectl get deployment accounts/acme/deployments/icy" in ran.stderr
    assert re.search(r"try again in \d+ s", ran.stderr)


@pytest.mark.parametrize("fault", ["die-midway", "error-midway"])
def test_an_engine_that_stops_midway_is_told_and_what_came_stays(firectl, served, fault):
    served.engine.fault = fault
    ran = firectl("chat", "llama", "-m", "count")
    assert (ran.returncode, ran.stdout) == (1, "one two \n")
    assert "stopped in the middle" in ran.stderr


def test_a_conversation_at_a_terminal(terminal, served):
    """A paste of two lines is one question; Ctrl-C stops the answer and not the program; Ctrl-D ends."""
    shell = terminal("chat", "llama")
    place = shell.until("accounts/acme/models/llama listens")
    shell.until(PROMPT, place)
    shell.type("\x1b[200~count\nto three\x1b[201~")
    place = shell.until("to three")
    shell.type("\r")
    place = shell.until(r"one two three\r\n.*7 tokens asked, 3 answered", place)
    assert served.engine.bodies[-1]["messages"] == [{"role": "user", "content": "count\nto three"}]

    served.engine.endless = True
    shell.until(PROMPT, place)
    shell.type("for ever\r")
    place = shell.until("one two three.*one two", place)
    shell.type("\x03")
    place = shell.until(r"\(stopped\)", place)
    assert wait_until(lambda: served.engine.active == 0)

    served.engine.endless = False
    shell.until(PROMPT, place)
    shell.type("again\r")
    place = shell.until(r"one two three\r\n", place)
    roles = [message["role"] for message in served.engine.bodies[-1]["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    shell.until(PROMPT, place)
    shell.type("\x04")
    assert shell.process.wait(SECONDS) == 0
