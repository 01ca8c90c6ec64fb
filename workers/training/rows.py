"""Rows of a dataset, read from its JSONL files one by one, and turned into marked text.

Rows stay the JSON objects that they are: put in a table, `{"a": 1}` beside `{"b": 2}` would become
`{"a": 1, "b": null}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from workers.training.encoding import Encoder, MarkedText, Marks, choose_marks, read_marks
from workers.training.errors import RowFailure, TrainingFailure
from workers.training.renderer import TemplateRenderer
from workers.training.templates import Row, TemplateProblem
from workers.validation.datasets import MAX_ROW_BYTES
from workers.validation.jsonl import BadRow, parse_row, split_lines
from workers.validation.rows import check_chat_row

READ_BYTES = 1024 * 1024
PLACEHOLDER = re.compile(r"{([^{}]+)}")


@dataclass(frozen=True)
class RawRow:
    place: str
    """File and line, for people."""
    fields: dict[str, Any]


class RowReader(Protocol):
    def read(self, row: RawRow) -> list[MarkedText]:
        """The row's training texts; raises RowFailure."""


def read_rows(files: Sequence[Path]) -> Iterator[RawRow]:
    """Every row of the files, in order; empty lines are none. Raises RowFailure."""
    for path in files:
        for number, line in enumerate(split_lines(_chunks(path), MAX_ROW_BYTES), start=1):
            if line is not None and not line.strip():
                continue
            yield _parse(f"{path.name} line {number}", line)


def _parse(place: str, line: bytes | None) -> RawRow:
    if line is None:
        raise RowFailure(place, "BAD_ROW", f"the line is longer than {MAX_ROW_BYTES} bytes")
    try:
        return RawRow(place, parse_row(line))
    except BadRow as error:
        raise RowFailure(place, "BAD_ROW", str(error)) from None


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(READ_BYTES):
            yield chunk


class ConversationReader:
    """Rows of messages, through a chat template."""

    def __init__(self, renderer: TemplateRenderer, encoder: Encoder, template: str) -> None:
        self._renderer = renderer
        self._encoder = encoder
        self._template = template

    def read(self, row: RawRow) -> list[MarkedText]:
        marks = _marks_for(row, self._template)
        conversation = self._conversation(row, marks)
        try:
            texts = self._renderer.render_marked(conversation, marks.trained)
        except TemplateProblem as problem:
            raise RowFailure(
                row.place, "TEMPLATE_ERROR", f"the chat template cannot render the row: {problem}"
            ) from None
        return [read_marks(text, marks) for text in texts]

    def read_prompt(self, row: RawRow) -> str:
        """What the row's last answer is asked with when the model is served."""
        marks = _marks_for(row, self._template)
        try:
            prompt = self._renderer.render_prompt(self._conversation(row, marks))
        except TemplateProblem as problem:
            raise RowFailure(
                row.place, "TEMPLATE_ERROR", f"the chat template cannot render the row's prompt: {problem}"
            ) from None
        return prompt.replace(marks.guard, "")

    def _conversation(self, row: RawRow, marks: Marks) -> Row:
        try:
            check_chat_row(row.fields)
        except BadRow as error:
            raise RowFailure(row.place, "BAD_ROW", str(error)) from None
        messages = row.fields["messages"]
        return Row(
            [self._encoder.guard(_as_served(message), marks.guard) for message in messages],
            self._encoder.guard(row.fields.get("tools"), marks.guard),
            [message.get("weight", 1) for message in messages],
        )


class CompletionReader:
    """Rows of fields, through two templates with `{field}` in them; a bare field name means that field."""

    def __init__(self, encoder: Encoder, input_template: str, output_template: str) -> None:
        self._encoder = encoder
        self._input = _completion_template(input_template)
        self._output = _completion_template(output_template)

    def read(self, row: RawRow) -> list[MarkedText]:
        marks = _marks_for(row, self._input, self._output)
        prompt = self._fill(self._input, row, marks)
        completion = self._fill(self._output, row, marks)
        return [read_marks(f"{prompt}{marks.trained}{completion}{marks.trained}", marks)]

    def _fill(self, template: str, row: RawRow, marks: Marks) -> str:
        def field(found: re.Match[str]) -> str:
            if found[1] not in row.fields:
                raise RowFailure(
                    row.place,
                    "FIELD_MISSING",
                    f"the template names the field {found[1]!r}, which the row lacks",
                )
            text: str = self._encoder.guard(_as_text(row.fields[found[1]]), marks.guard)
            return text

        return PLACEHOLDER.sub(field, template)


def _completion_template(template: str) -> str:
    return template if PLACEHOLDER.search(template) else f"{{{template}}}"


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_served(message: dict[str, Any]) -> dict[str, Any]:
    """The message as the engine gives it to a template: no weight, and the arguments of calls as objects."""
    served = {key: value for key, value in message.items() if key != "weight"}
    if served.get("tool_calls"):
        served["tool_calls"] = [_with_arguments(call) for call in served["tool_calls"]]
    return served


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"].get("arguments")
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _marks_for(row: RawRow, *templates: str) -> Marks:
    marks = choose_marks(json.dumps(row.fields, ensure_ascii=False), *templates)
    if marks is None:
        raise RowFailure(row.place, "BAD_ROW", "the row is full of characters that Unicode reserves")
    return marks


def require_template(given: str | None, of_model: str | None, model_name: str) -> str:
    """The job's chat template, else the base model's own."""
    template = given or of_model
    if not template:
        raise TrainingFailure(
            "INVALID_ARGUMENT",
            "NO_CHAT_TEMPLATE",
            f"{model_name} has no chat template and the job gives none; set conversation.jinja_template",
        )
    return template
