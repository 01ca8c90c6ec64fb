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

from workers.training.errors import RowFailure
from workers.training.examples.encoding import Encoder, MarkedText, Marks, choose_marks, read_marks
from workers.training.examples.renderer import TemplateRenderer
from workers.training.examples.templates import Row, TemplateProblem
from workers.validation.datasets import MAX_ROW_BYTES
from workers.validation.jsonl import BadRow, parse_row, split_lines
from workers.validation.rows import check_chat_row

READ_BYTES = 1024 * 1024
CHUNK_BYTES = 2 * 1024 * 1024
CONTENT_LOST = "CONTENT_LOST"
TOOLS_LOST = "TOOLS_LOST"
TOOLS_SHOWN = "TOOLS_SHOWN"
PLACEHOLDER = re.compile(r"{([^{}]+)}")

CLASSIFICATION_INPUT = "{text}\n\nLabel:"
CLASSIFICATION_OUTPUT = " {label}"
"""The space belongs to the label: most vocabularies hold a word together with the space before it."""


@dataclass(frozen=True)
class RawRow:
    place: str
    """File and line, for people."""
    fields: dict[str, Any]


class RowReader(Protocol):
    def read(self, row: RawRow) -> list[MarkedText]:
        """The row's training texts; raises RowFailure."""

    def read_many(self, rows: Sequence[RawRow]) -> list[list[MarkedText] | RowFailure]:
        """The same of many rows, the failures in their places."""


@dataclass(frozen=True)
class Chunk:
    """Some consecutive lines of one file, not yet looked at; empty ones are left out."""

    file: str
    file_start: int
    """The number of the file's first row in the dataset; rows are counted from 0."""
    start: int
    """The number of the chunk's own first row."""
    lines: list[tuple[int, bytes | None]]
    """Line numbers, from 1, and lines; None for one that is too long."""

    def rows(self) -> Iterator[tuple[int, RawRow | RowFailure]]:
        """Each row's number in the dataset, and the row or what is wrong with it."""
        for number, (line_number, line) in enumerate(self.lines, start=self.start):
            try:
                yield number, _parse(f"{self.file} line {line_number}", line)
            except RowFailure as failure:
                yield number, failure


def read_rows(files: Sequence[Path]) -> Iterator[RawRow]:
    """Every row of the files, in order; empty lines are none. Raises RowFailure."""
    for chunk in read_chunks(files, 1):
        for _, row in chunk.rows():
            if isinstance(row, RowFailure):
                raise row
            yield row


def read_chunks(files: Sequence[Path], rows: int) -> Iterator[Chunk]:
    """The files' lines, in order; each chunk has at most so many rows, and few when they are long."""
    start = 0
    for path in files:
        file_start = start
        numbered = enumerate(split_lines(_chunks(path), MAX_ROW_BYTES), start=1)
        held: list[tuple[int, bytes | None]] = []
        size = 0
        for number, line in numbered:
            if line is not None and not line.strip():
                continue
            held.append((number, line))
            size += len(line or b"")
            if len(held) >= rows or size >= CHUNK_BYTES:
                yield Chunk(path.name, file_start, start, held)
                start, held, size = start + len(held), [], 0
        if held:
            yield Chunk(path.name, file_start, start, held)
            start += len(held)


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


@dataclass(frozen=True)
class _Prepared:
    place: str
    marks: Marks
    talk: Row


class ConversationReader:
    """Rows of messages, through a chat template."""

    def __init__(self, renderer: TemplateRenderer, encoder: Encoder, template: str) -> None:
        self._renderer = renderer
        self._encoder = encoder
        self._template = template
        self.way = renderer.way
        """How the template says what is trained."""

    def read(self, row: RawRow) -> list[MarkedText]:
        (found,) = self.read_many([row])
        if isinstance(found, RowFailure):
            raise found
        return found

    def read_many(self, rows: Sequence[RawRow]) -> list[list[MarkedText] | RowFailure]:
        """As `read` of each row, the failures in their places: one question to the renderer for all."""
        prepared = [self._prepare(row) for row in rows]
        good = [one for one in prepared if not isinstance(one, RowFailure)]
        rendered = iter(self._renderer.render_many([(one.talk, one.marks.trained) for one in good]))
        return [one if isinstance(one, RowFailure) else self._marked(one, next(rendered)) for one in prepared]

    def _prepare(self, row: RawRow) -> _Prepared | RowFailure:
        try:
            marks = _marks_for(row, self._template)
            return _Prepared(row.place, marks, self._conversation(row, marks))
        except RowFailure as failure:
            return failure

    def _marked(
        self, prepared: _Prepared, texts: list[str] | TemplateProblem
    ) -> list[MarkedText] | RowFailure:
        if isinstance(texts, TemplateProblem):
            return RowFailure(
                prepared.place, "TEMPLATE_ERROR", f"the chat template cannot render the row: {texts}"
            )
        notes = _notes(prepared.talk, texts[-1])
        return [read_marks(text, prepared.marks, notes) for text in texts]

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

    def read_many(self, rows: Sequence[RawRow]) -> list[list[MarkedText] | RowFailure]:
        return [self._read_or_fail(row) for row in rows]

    def _read_or_fail(self, row: RawRow) -> list[MarkedText] | RowFailure:
        try:
            return self.read(row)
        except RowFailure as failure:
            return failure

    def read_prompt(self, row: RawRow) -> MarkedText:
        """What the row's completion is asked with when the model is served."""
        marks = _marks_for(row, self._input)
        return read_marks(self._fill(self._input, row, marks), marks)

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


class ClassificationReader(CompletionReader):
    """Rows of a text and its label: the label is generated, as the completion of a fixed prompt.

    Whoever asks the model when it is served writes the same prompt around the text: `CLASSIFICATION_INPUT`.
    """

    def __init__(self, encoder: Encoder, text_field: str, label_field: str) -> None:
        super().__init__(
            encoder,
            CLASSIFICATION_INPUT.replace("{text}", f"{{{text_field}}}"),
            CLASSIFICATION_OUTPUT.replace("{label}", f"{{{label_field}}}"),
        )
        self._label_field = label_field

    def read(self, row: RawRow) -> list[MarkedText]:
        if not self.label(row):
            raise RowFailure(
                row.place, "EMPTY_LABEL", f"the label in the field {self._label_field!r} is empty"
            )
        return super().read(row)

    def label(self, row: RawRow) -> str:
        """What the model is to generate, without the space before it."""
        return _as_text(row.fields.get(self._label_field)).strip()


def _notes(talk: Row, text: str) -> list[str]:
    """What the row says and the text does not. Answers are looked at elsewhere, results may be quoted.

    That it shows the row's tools is noted too.
    """
    said = [message["content"] for message in talk.messages if message.get("role") in ("system", "user")]
    names = [tool["function"]["name"] for tool in talk.tools or ()]
    notes = []
    if not all(content.strip() in text for content in said):
        notes.append(CONTENT_LOST)
    if names:
        notes.append(TOOLS_SHOWN if all(name in text for name in names) else TOOLS_LOST)
    return notes


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
