"""The check of a job's data, made while it is tokenized: before the model's weights are loaded.

The same pass serves the trainer, which goes on with the examples, and an inspection, which throws them away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.checks.templates import too_long
from controlplane.checks.tool_calls import tool_parser
from workers.training.errors import TrainingFailure
from workers.training.examples.counts import Counts, histogram
from workers.training.examples.dataset import Tokenized
from workers.training.examples.duplicates import repeated_rows, rows_in_both
from workers.training.examples.encoding import Encoder
from workers.training.examples.pool import tokenize_files
from workers.training.examples.reading import GIVEN, Reading, choose_template, start_of
from workers.training.examples.rows import ConversationReader
from workers.training.examples.tokenizer import (
    context_length,
    model_type,
    stop_token_ids,
    vocabulary_size,
)
from workers.training.preflight.findings import Facts, Finding, find
from workers.validation.chat_template import InvalidTemplate, check_chat_template


@dataclass(frozen=True)
class Data:
    """The files of a job's data, and how they are to be read."""

    reading: Reading
    train: Sequence[Path]
    evaluation: Sequence[Path]
    cutoff: int
    epochs: float = 1.0


@dataclass(frozen=True)
class Checked:
    """`tokenized`: the training dataset and, where there is one, the evaluation dataset."""

    tokenized: list[Tokenized]
    findings: list[Finding]
    masking: str
    """How the trained text was found: unk_token, generation, prefix or completion."""
    cutoff: int

    @property
    def warnings(self) -> list[str]:
        return [finding.told() for finding in self.findings if finding.severity == "WARNING"]

    @property
    def train(self) -> Counts:
        return self.tokenized[0].counts

    @property
    def longest(self) -> int:
        """Tokens of the longest example, be it trained or evaluated: as many go through the model at once."""
        return max(tokenized.counts.longest for tokenized in self.tokenized)


def check_data(data: Data, base: Path, tokenizer: Any, folder: Path) -> Checked:
    """Tokenize the datasets into `folder` and say what there is to say of them.

    Raises TrainingFailure only for a template that cannot be used at all.
    """
    if data.reading.origin == GIVEN:
        require_servable(data.reading.template)
    encoder = Encoder(tokenizer, stop_token_ids(base, tokenizer), vocabulary_size(base))
    cutoff = min(data.cutoff, context_length(base) or data.cutoff)
    with data.reading.open(encoder) as reader:
        masking = reader.way if isinstance(reader, ConversationReader) else "completion"
        start = start_of(reader, encoder, data.train, tokenizer)
        tokenized = [
            tokenize_files(files, data.reading, reader, encoder, start.leading, cutoff, folder / name)
            for name, files in (("train.arrow", data.train), ("evaluation.arrow", data.evaluation))
            if files
        ]
    counts, held_out = tokenized[0].counts, tokenized[1].counts if len(tokenized) > 1 else None
    facts = Facts(
        train=counts,
        evaluation=held_out,
        repeats=repeated_rows(counts),
        **({"in_both": rows_in_both(counts, held_out)} if held_out else {}),
        cutoff=cutoff,
        asked_cutoff=data.cutoff,
        epochs=data.epochs,
        origin=data.reading.origin,
        prompt_differs=start.prompt_differs,
        tools_in_words=not reads_calls(data.reading.template, tokenizer.chat_template, model_type(base)),
        tokenizer_size=len(tokenizer),
        vocabulary_size=vocabulary_size(base),
    )
    return Checked(tokenized, find(facts), masking, cutoff)


def require_servable(template: str) -> None:
    """Raises TrainingFailure for a template with which the adapter would be refused in the end."""
    reason = too_long(template)
    try:
        check_chat_template(template)
    except InvalidTemplate as error:
        reason = str(error)
    if reason:
        message = f"the chat template cannot be served: {reason}"
        raise TrainingFailure("INVALID_ARGUMENT", "TEMPLATE_ERROR", message)


def reads_calls(template: str, of_model: Any, family: str) -> bool:
    """Whether the engine reads the calls that this template writes: it has the base model's reader."""
    parser = tool_parser(template, family)
    return parser is not None and parser == tool_parser(choose_template(None, of_model)[0], family)


def summary(counts: Counts) -> dict[str, Any]:
    """The counts, for people and programs."""
    return {
        "rows": counts.rows_in,
        "rows_trained": counts.rows_trained,
        "rows_dropped": counts.rows_dropped,
        "rows_cut": counts.truncated_rows,
        "examples": counts.examples,
        "tokens": counts.tokens,
        "trained_tokens": counts.trained_tokens,
        "longest": counts.longest,
        "lengths": histogram(counts.lengths),
        "labels": dict(counts.labels.most_common()),
    }
