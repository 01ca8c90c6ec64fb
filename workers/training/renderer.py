"""Renders chat templates in a process of its own, which has limits and holds no secrets.

A template can loop for ever or ask for a terabyte, some of it inside one call that nothing in Python can
interrupt. The process counts: it may use so much processor time a row and so much memory, and when it is
killed for it the row that did it is known.

Lines of JSON over pipes. First {"template", "tokens"}, answered by {"way"}; then {"row", "mark"} answered by
{"texts"}, or {"row"} answered by {"prompt"}. An answer may be {"problem"} instead.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from workers.training.templates import ChatTemplate, Row, TemplateProblem

ROW_CPU_SECONDS = 10
MEMORY_BYTES = 2 * 1024**3


class TemplateRenderer:
    """A template, compiled and run elsewhere. A context manager; raises TemplateProblem."""

    def __init__(
        self, source: str, tokens: Mapping[str, str], row_cpu_seconds: int = ROW_CPU_SECONDS
    ) -> None:
        self._seconds = row_cpu_seconds
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(row_cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"},
            text=True,
            encoding="utf-8",
        )
        try:
            self.way: str = self._ask({"template": source, "tokens": dict(tokens)})["way"]
        except BaseException:
            self.close()
            raise

    def render_marked(self, row: Row, mark: str) -> list[str]:
        """As `ChatTemplate.render_marked`."""
        texts: list[str] = self._ask({"row": asdict(row), "mark": mark})["texts"]
        return texts

    def render_prompt(self, row: Row) -> str:
        """As `ChatTemplate.render_prompt`."""
        prompt: str = self._ask({"row": asdict(row)})["prompt"]
        return prompt

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise TemplateProblem(self._cause_of_death())
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise TemplateProblem(answer["problem"])
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
        try:
            if template is None:
                template = ChatTemplate(question["template"], question["tokens"])
                answer: dict[str, Any] = {"way": template.way}
            else:
                answer = _answer(template, Row(**question["row"]), question.get("mark"))
        except TemplateProblem as problem:
            answer = {"problem": str(problem)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(template: ChatTemplate, row: Row, mark: str | None) -> dict[str, str | Sequence[str]]:
    if mark is None:
        return {"prompt": template.render_prompt(row)}
    return {"texts": template.render_marked(row, mark)}


def _allow_seconds(seconds: int) -> None:
    """Let the process be killed when it has used so much more processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
