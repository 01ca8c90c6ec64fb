"""firectl as a person sees it: bars, waits, curves and tables, on wide and narrow terminals and in a pipe."""

from __future__ import annotations

import math
import re
import subprocess
import threading

import pytest

from tests.terminal.conftest import FIRECTL

HOME = "/v1/accounts/acme"
JOB = "accounts/acme/fineTuningJobs/tickets"
STEPS = [{"step": step, "loss": 0.4 + 2 * math.exp(-step / 12)} for step in range(1, 41)]
EVALUATIONS = [{"step": step, "eval_loss": 0.6 + 2 * math.exp(-step / 12)} for step in (10, 20, 30)]
BRAILLE = re.compile("[\u2801-\u28ff]")


class Job:
    """A job of the stand-in server, which a test moves along."""

    def __init__(self, api) -> None:
        self.state, self.progress, self.code, self.message = "PENDING", {}, "OK", "no place is free yet"
        api.on("GET", f"/v1/{JOB}", lambda _: api.ok(self.seen()))
        api.on("POST", f"{HOME}/fineTuningJobs", lambda _: api.ok(self.seen()))
        api.on("GET", f"/v1/{JOB}:metrics", lambda _: api.ok({"metrics": [*STEPS, *EVALUATIONS]}))

    def seen(self):
        return {
            "name": JOB,
            "createTime": "2026-01-01T00:00:00Z",
            "state": self.state,
            "status": {"code": self.code, "message": self.message},
            "modelId": "tickets-model",
            "progress": self.progress,
        }

    def train(self, step: int = 12) -> None:
        self.state, self.message = "RUNNING", ""
        self.progress = {
            "phase": "TRAINING",
            "step": step,
            "maxSteps": 100,
            "loss": 1.2346,
            "tokensPerSecond": 1532.4,
            "etaSeconds": 75,
        }

    def end(self, state: str, message: str = "", code: str = "OK") -> None:
        self.state, self.message, self.code = state, message, code


@pytest.fixture
def job(api):
    return Job(api)


WAIT = (
    "create",
    "fine-tuning-job",
    "--base-model",
    "b",
    "--dataset",
    "d",
    "--kind",
    "conversation",
    "--wait",
)


def test_waiting_shows_what_the_job_is_doing_until_it_is_done(terminal, job):
    session = terminal(*WAIT)
    session.until_shown("PENDING", "no place is free yet")
    assert not session.has_cursor
    job.train()
    session.until_shown("RUNNING", "step 12/100", "loss 1.2346", "1,532 tokens/s", "1m15s left")
    assert len([line for line in session.lines if "RUNNING" in line]) == 1
    job.end("COMPLETED")
    assert session.ended() == 0
    assert session.has_cursor
    assert session.lines[0] == "tickets"
    assert "Completed: accounts/acme/models/tickets-model" in session.text
    assert "RUNNING" not in session.text


def test_waiting_survives_narrow_terminals_and_changes_of_their_size(terminal, job):
    job.train()
    session = terminal(*WAIT, columns=30)
    session.until_shown("RUNNING", "step 12/100", "1m15s left")
    drawn = session.lines[1:]
    assert 2 <= len(drawn) <= 6
    session.resize(100, 24)
    session.until(lambda: any("RUNNING" in line and "1m15s left" in line for line in session.lines))
    session.resize(24, 12)
    session.until(lambda: any(line.strip() == "1m15s left" for line in session.lines))
    assert len([line for line in session.lines if "RUNNING" in line]) == 1
    job.end("COMPLETED")
    assert session.ended() == 0
    assert "RUNNING" not in session.text


def test_ctrl_c_says_that_the_job_lives_on_and_leaves_the_terminal_sane(terminal, job):
    job.train()
    session = terminal(*WAIT, columns=120)
    session.until_shown("RUNNING")
    session.interrupt()
    assert session.ended() == 130
    assert session.has_cursor
    assert f"Error: stopped waiting; {JOB} lives on" in session.text
    assert "firectl get fine-tuning-job tickets" in session.text
    assert "Traceback" not in session.text


def test_being_told_to_end_leaves_the_terminal_sane(terminal, job):
    job.train()
    session = terminal(*WAIT, columns=120)
    session.until_shown("RUNNING")
    session.terminate()
    assert session.ended() == 143
    assert session.has_cursor


def test_quiet_draws_nothing(terminal, job):
    job.end("COMPLETED")
    session = terminal(*WAIT, "--quiet")
    assert session.ended() == 0
    assert session.written == b"tickets\r\n"


def test_a_dumb_terminal_gets_plain_lines(terminal, job):
    job.train()
    session = terminal(*WAIT, TERM="dumb")
    session.until_shown("RUNNING  training  step 12/100")
    job.end("COMPLETED")
    assert session.ended() == 0
    assert b"\x1b" not in session.written


def test_watch_draws_the_loss_curve_and_ends_with_the_job(terminal, job):
    job.train()
    session = terminal("get", "fine-tuning-job", "tickets", "--watch")
    session.until_shown(
        "fine-tuning-job tickets  RUNNING", "step 12/100", "└──", "● evaluation 0.76", "loss 0.47"
    )
    assert len(BRAILLE.findall(session.text)) > 40
    assert session.text.count("●") == len(EVALUATIONS) + 1
    axis = next(line for line in session.lines if "└" in line)
    assert session.lines[session.lines.index(axis) + 1].split() == ["1", "40"]
    job.end("COMPLETED")
    assert session.ended() == 0
    assert not BRAILLE.search(session.text)
    assert session.lines[0] == f"Name: {JOB}"
    assert "State: COMPLETED" in session.text


@pytest.mark.parametrize(("columns", "lines"), [(20, 8), (30, 10), (200, 50)])
def test_the_chart_fits_terminals_of_any_size(terminal, job, columns, lines):
    job.train()
    session = terminal("get", "fine-tuning-job", "tickets", "--watch", columns=columns, lines=lines)
    session.until(lambda: "└" in session.text and BRAILLE.search(session.text) is not None)
    assert len(session.lines) < lines
    assert sum("└" in line for line in session.lines) == 1
    assert all(line == "" or len(line) < columns for line in session.lines)


def test_a_watched_job_that_fails_is_shown_and_exits_3(terminal, job):
    job.train()
    session = terminal("get", "fine-tuning-job", "tickets", "--watch")
    session.until_shown("RUNNING")
    job.end("FAILED", "out of memory", "RESOURCE_EXHAUSTED")
    assert session.ended() == 3
    assert "State: FAILED" in session.text
    assert "Error: the job is FAILED: out of memory" in session.text


def test_a_pipe_gets_plain_lines_and_no_chart(environ, job):
    job.train()
    argv = [*FIRECTL, "get", "fine-tuning-job", "tickets", "--watch"]
    process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()
    job.end("COMPLETED")
    out, err = process.communicate(timeout=20)
    assert first == "RUNNING  training  step 12/100  loss 1.2346  1,532 tokens/s  1m15s left\n"
    assert process.returncode == 0
    assert out.splitlines()[0] == f"Name: {JOB}"
    assert "Create Time: 2026-01-01 00:00:00\n" in out
    assert not {"\x1b", "└", "\r"} & set(out + err)


def test_a_followed_log_comes_line_by_line_until_ctrl_c(terminal, api, job):
    printed = ["step 1\n"]

    def answer(request):
        text = "".join(printed)[int(request.query.get("offset", 0)) :]
        return api.ok({"text": text, "nextOffset": str(len("".join(printed))), "complete": False})

    api.on("GET", f"/v1/{JOB}:logs", answer)
    session = terminal("logs", "tickets", "--follow")
    session.until_shown("step 1")
    printed.append("step 2\n")
    session.until(lambda: session.lines == ["step 1", "step 2"])
    session.interrupt()
    assert session.ended() == 130
    assert f"Error: stopped following; {JOB} lives on" in session.text
    assert f"firectl logs {JOB} --follow" in session.text


def test_a_download_shows_a_bar_that_goes_on(terminal, api, tmp_path):
    released = threading.Event()
    content = b"x" * 3_000_000

    def slow(_request):
        released.wait(20)
        return api.raw(200, content)

    files = {"config.json": f"{api.url}/files/config.json", "model.safetensors": f"{api.url}/files/weights"}
    api.on("GET", f"{HOME}/models/m:getDownloadEndpoint", {"filenameToSignedUrls": files})
    api.on("GET", "/files/config.json", api.raw(200, b"{}"))
    api.on("GET", "/files/weights", slow)
    session = terminal("download", "model", "m", str(tmp_path / "m"), columns=60)
    session.until_shown("Downloading")
    assert not session.has_cursor
    released.set()
    assert session.ended() == 0
    assert session.has_cursor
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == content
    assert sum("Downloading" in line for line in session.lines) <= 1


def test_ctrl_c_during_a_download_leaves_the_terminal_sane(terminal, api, tmp_path):
    released = threading.Event()

    def slow(_request):
        released.wait(20)
        return api.lost()

    files = {"model.safetensors": f"{api.url}/files/weights"}
    api.on("GET", f"{HOME}/models/m:getDownloadEndpoint", {"filenameToSignedUrls": files})
    api.on("GET", "/files/weights", slow)
    session = terminal("download", "model", "m", str(tmp_path / "m"))
    session.until_shown("Downloading")
    session.interrupt()
    released.set()
    assert session.ended() == 130
    assert session.has_cursor
    assert "Error: download stopped" in session.text
    assert "Traceback" not in session.text


ROWS = [
    {
        "name": "accounts/acme/models/tickets-2026",
        "displayName": "Tickets 日本語 🎉",
        "createTime": "2026-01-01T00:00:00Z",
        "kind": "HF_PEFT_ADDON",
        "state": "READY",
    },
    {
        "name": "accounts/acme/models/b",
        "createTime": "2026-01-02T00:00:00Z",
        "kind": "K",
        "state": "UPLOADING",
    },
]


@pytest.mark.parametrize("columns", [120, 80, 60, 40, 30, 20])
def test_a_list_is_as_wide_as_the_terminal_and_never_cuts_an_id(terminal, api, columns):
    api.on("GET", f"{HOME}/models", {"models": ROWS})
    session = terminal("list", "models", columns=columns)
    assert session.ended() == 0
    assert "tickets-2026" in session.text
    assert "READY" in session.text
    rows = [line for line in session.lines if "tickets-2026" in line]
    assert len(rows) == 1


def test_states_are_coloured_on_a_terminal(terminal, api):
    api.on("GET", f"{HOME}/models", {"models": ROWS})
    session = terminal("list", "models")
    assert session.ended() == 0
    assert b"\x1b[32mREADY\x1b[0m" in session.written
    assert b"\x1b[33mUPLOADING\x1b[0m" in session.written


def test_one_resource_tells_how_long_ago_on_a_terminal(terminal, api):
    api.on(
        "GET", f"{HOME}/models/m", {**ROWS[0], "createTime": "2020-01-01T00:00:00Z", "exampleCount": "12345"}
    )
    session = terminal("get", "model", "m", NO_COLOR="1")
    assert session.ended() == 0
    created = next(line for line in session.lines if line.startswith("Create Time"))
    assert re.fullmatch(r"Create Time: 2020-01-01 00:00:00 \(\d+y ago\)", created)
    assert "Example Count: 12,345" in session.text
    assert b"\x1b" not in session.written
