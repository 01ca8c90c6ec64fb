"""Renders chat templates in a process of its own, which has limits and holds no secrets.

A template can loop for ever or ask for a terabyte, some of it inside one call that nothing in Python can
interrupt. The process counts: it may use so much processor time a row and so much memory, and when it is
killed for it the row that did it is known.

Lines of JSON over pipes. First {"template", "tokens", "day"}, answered by {"way"}; then {"rows": [{"row",
"mark"}]}, answered by a line {"texts"} for each row, or {"row"}, answered by {"prompt"}. An answer may be
{"problem"} instead. A question is read to its end before it is answered, so neither side waits for the other.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Self

from workers.training.examples.templates import ChatTemplate, Row, TemplateProblem

ROW_CPU_SECONDS = 10
MEMORY_BYTES = 2 * 1024**3
MOST_CHARACTERS = 32_000_000
"""Of the rows that are asked for together: they are in memory together."""
MAX_DEATHS = 3
"""Rows that may end the process before the template is given up: each costs its whole time."""


class TemplateRenderer:
    """A template, compiled and run elsewhere. A context manager; raises TemplateProblem."""

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str],
        day: date | None = None,
        row_cpu_seconds: int = ROW_CPU_SECONDS,
    ) -> None:
        self._seconds = row_cpu_seconds
        told = day.isoformat() if day else None
        self._first_question = {"template": source, "tokens": dict(tokens), "day": told}
        self._deaths = 0
        self._given_up = ""
        """Why nothing is rendered any more."""
        self.way: str = ""
        self._start()

    def render_marked(self, row: Row, mark: str) -> list[str]:
        """As `ChatTemplate.render_marked`."""
        (found,) = self.render_many([(row, mark)])
        if isinstance(found, TemplateProblem):
            raise found
        return found

    def render_many(self, rows: Sequence[tuple[Row, str]]) -> list[list[str] | TemplateProblem]:
        """As `ChatTemplate.render_marked` of each row with its mark; a row that fails fails alone.

        A row that ends the process is followed by a new process; after `MAX_DEATHS` all others fail too.
        """
        found: list[list[str] | TemplateProblem] = []
        written = 0
        while len(found) < len(rows):
            if self._given_up:
                return found + [TemplateProblem(self._given_up) for _ in rows[len(found) :]]
            rest = rows[len(found) :]
            asked = self._send({"rows": [{"row": vars(row), "mark": mark} for row, mark in rest]})
            for _ in rest if asked else ():
                answer = self._receive()
                if answer is None:
                    break
                problem = answer.get("problem")
                written += sum(map(len, answer.get("texts", ())))
                if problem is None and written > MOST_CHARACTERS:
                    problem = f"it writes more than {MOST_CHARACTERS} characters for {len(found) + 1} rows"
                found.append(answer["texts"] if problem is None else TemplateProblem(problem))
            if len(found) < len(rows):
                found.append(TemplateProblem(self._replace_dead()))
        return found

    def render_prompt(self, row: Row) -> str:
        """As `ChatTemplate.render_prompt`."""
        if self._given_up:
            raise TemplateProblem(self._given_up)
        prompt: str = self._ask({"row": vars(row)})["prompt"]
        return prompt

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"},
            text=True,
            encoding="utf-8",
        )
        try:
            self.way = self._ask(self._first_question)["way"]
        except BaseException:
            self.close()
            raise

    def _replace_dead(self) -> str:
        """Why the process is dead; another one is there now."""
        cause = self._cause_of_death()
        self._deaths += 1
        self.close()
        if self._deaths >= MAX_DEATHS:
            self._given_up = f"{cause}, on {self._deaths} rows; it was not asked again"
        else:
            self._start()
        return cause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        answer = self._receive() if self._send(question) else None
        if answer is None:
            raise TemplateProblem(self._cause_of_death())
        if "problem" in answer:
            raise TemplateProblem(answer["problem"])
        return answer

    def _send(self, question: dict[str, Any]) -> bool:
        """False when nobody is there to read it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def _receive(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] | None = json.loads(line) if line.endswith("\n") else None
        return answer

    def _cause_of_death(self) -> str:
        if self._process.wait() in {-signal.SIGXCPU, -signal.SIGKILL}:
            return f"it does not come to an end: it ran for {self._seconds} seconds"
        return "it needs too much memory"


def serve(row_cpu_seconds: int) -> None:
    """Answer questions until there are no more; what templates print or write elsewhere goes nowhere."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    template: ChatTemplate | None = None
    for line in sys.stdin:
        _allow_seconds(row_cpu_seconds)
        question = json.loads(line)
        if template is not None and "rows" in question:
            for asked in question["rows"]:
                _allow_seconds(row_cpu_seconds)
                _tell(_answer(template, asked))
            continue
        if template is not None:
            _tell(_answer(template, question))
            continue
        try:
            day = date.fromisoformat(question["day"]) if question["day"] else None
            template = ChatTemplate(question["template"], question["tokens"], day)
        except TemplateProblem as problem:
            _tell({"problem": str(problem)})
        else:
            _tell({"way": template.way})


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(template: ChatTemplate, asked: dict[str, Any]) -> dict[str, str | Sequence[str]]:
    row = Row(**asked["row"])
    try:
        if "mark" not in asked:
            return {"prompt": template.render_prompt(row)}
        return {"texts": template.render_marked(row, asked["mark"])}
    except TemplateProblem as problem:
        return {"problem": str(problem)}


def _allow_seconds(seconds: int) -> None:
    """Let the process be killed when it has used so much more processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
