"""How the rows of a job become ids and labels: the one way, for training, evaluation, counts and preview."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from workers.training.config import JobSpec
from workers.training.errors import TrainingFailure
from workers.training.examples.encoding import Encoder
from workers.training.examples.generic import GENERIC_TEMPLATE
from workers.training.examples.preference_rows import PreferenceReader
from workers.training.examples.renderer import TemplateRenderer
from workers.training.examples.rows import (
    ClassificationReader,
    CompletionReader,
    ConversationReader,
    RawRow,
    RowReader,
    read_chunks,
)
from workers.training.examples.templates import TemplateProblem

TALKS = {"conversation": ConversationReader, "preference": PreferenceReader}
"""The kinds of job whose rows go through a chat template."""
GIVEN, OF_MODEL, GENERIC = "given", "of the base model", "generic"


@dataclass(frozen=True)
class Reading:
    """What a reader is made of; plain data, so that other processes can make the same one."""

    kind: str
    template: str = ""
    """Of a conversation: the chat template, and whose it is."""
    origin: str = ""
    template_tokens: dict[str, str] = field(default_factory=dict)
    day: date | None = None
    """What the template takes for today."""
    input_template: str = ""
    """Of a completion; of a classification the field of the text."""
    output_template: str = ""

    @contextmanager
    def open(self, encoder: Encoder) -> Iterator[RowReader]:
        """Raises TrainingFailure for a template that does not compile."""
        if self.kind in TALKS:
            with open_template(self.template, self.template_tokens, self.day) as renderer:
                yield TALKS[self.kind](renderer, encoder, self.template)
        elif self.kind == "text_classification":
            yield ClassificationReader(encoder, self.input_template, self.output_template)
        else:
            yield CompletionReader(encoder, self.input_template, self.output_template)


def reading_of(spec: JobSpec, tokenizer: Any) -> Reading:
    """How the job's rows are read; a conversation by the first template that there is."""
    if spec.kind in TALKS:
        template, origin = choose_template(spec.jinja_template, tokenizer.chat_template)
        return Reading(spec.kind, template, origin, template_tokens(tokenizer), spec.day)
    return Reading(
        spec.kind, input_template=spec.input_template or "", output_template=spec.output_template or ""
    )


def choose_template(given: str | None, of_model: str | dict[str, str] | None) -> tuple[str, str]:
    """The job's own chat template, else the base model's, else the generic one; and whose it is."""
    if given:
        return given, GENERIC if given == GENERIC_TEMPLATE else GIVEN
    if isinstance(of_model, dict):  # several by name, of which chats take this one
        of_model = of_model.get("default")
    return (of_model, OF_MODEL) if of_model else (GENERIC_TEMPLATE, GENERIC)


def template_tokens(tokenizer: Any) -> dict[str, str]:
    """The special tokens that chat templates know by name: `bos_token`, `eos_token`, …"""
    return {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }


def open_template(template: str, tokens: dict[str, str], day: date | None) -> TemplateRenderer:
    try:
        return TemplateRenderer(template, tokens, day)
    except TemplateProblem as problem:
        raise TrainingFailure(
            "INVALID_ARGUMENT", "TEMPLATE_ERROR", f"the chat template cannot be used: {problem}"
        ) from None


@dataclass(frozen=True)
class Start:
    """What stands before the text of every row."""

    leading: list[int]
    prompt_differs: bool = False
    """The prompt that serving makes is not how training text starts."""


def start_of(reader: RowReader, encoder: Encoder, files: Sequence[Path], tokenizer: Any) -> Start:
    """The BOS token where serving starts with it and training text does not, as the `unk_token` way has it.

    Of conversations the first row that can be read tells.
    """
    if not isinstance(reader, ConversationReader):
        return Start(encoder.leading_ids)
    row = _first_readable(reader, files)
    if row is None:
        return Start([])
    trained, prompt = reader.read(row)[-1].text, reader.read_prompt(row)
    bos = tokenizer.bos_token or ""
    adds_bos = bool(bos) and prompt.startswith(bos) and not trained.startswith(bos)
    differs = not (bos + trained if adds_bos else trained).startswith(prompt)
    return Start([tokenizer.bos_token_id] if adds_bos else [], differs)


ROWS_TO_TRY = 20


def _first_readable(reader: ConversationReader, files: Sequence[Path]) -> RawRow | None:
    """Of the first few rows; that others cannot be read is found when all are."""
    for chunk in read_chunks(files, ROWS_TO_TRY):
        rows = [row for _, row in chunk.rows() if isinstance(row, RawRow)]
        for row, found in zip(rows, reader.read_many(rows), strict=True):
            if isinstance(found, list):
                return row
        return None
    return None
