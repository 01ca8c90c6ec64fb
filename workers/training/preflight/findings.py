"""What there is to say about the data of a job before it is trained: findings, from counts alone.

`FINDINGS` is the table; `find` reads it. An error ends the job, a warning goes into its report.
docs/fine-tuning.md says the same finding by finding, and a test compares them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from workers.training.errors import TrainingFailure
from workers.training.examples.counts import Counts
from workers.training.examples.duplicates import Repeats
from workers.training.examples.reading import GENERIC, OF_MODEL
from workers.training.examples.rows import TOOLS_SHOWN

MAX_EXAMPLES = 3_000_000
"""Of examples × epochs, as the original has it."""

Severity = Literal["ERROR", "WARNING"]


@dataclass(frozen=True)
class Kind:
    severity: Severity
    sentence: str
    """With names of what `find` fills in."""
    hint: str


FINDINGS = {
    "EMPTY_DATASET": Kind("ERROR", "the dataset holds no rows", "Upload a file with one row at least."),
    "BAD_ROW": Kind("ERROR", "not a row of this kind of job: {rows}", "Mend the lines, and upload again."),
    "TEMPLATE_ERROR": Kind(
        "ERROR",
        "the chat template cannot render: {rows}",
        "The message is the template's own. Change the rows, or give the job a template that takes them.",
    ),
    "FIELD_MISSING": Kind(
        "ERROR",
        "a field that the job's templates name is missing: {rows}",
        "Name fields that every row has, or add the field.",
    ),
    "EMPTY_LABEL": Kind("ERROR", "without a label: {rows}", "Give every row a label, or leave it out."),
    "ALL_ROWS_TRUNCATED": Kind(
        "ERROR",
        "the cut-off length of {cutoff} tokens cuts off the answers of all {rows}; nothing is left to train",
        "Raise the cut-off length, or shorten what stands before the answers.",
    ),
    "NOTHING_TO_TRAIN": Kind(
        "ERROR",
        "none of the {rows} has an answer to train on",
        "Look at the preview: the template marks no text as the assistant's.",
    ),
    "TOO_MANY_EXAMPLES": Kind(
        "ERROR",
        "examples × epochs is {seen}, more than {most}",
        "Train fewer epochs, or fewer rows.",
    ),
    "TOKENS_WITHOUT_WEIGHTS": Kind(
        "ERROR",
        "the tokenizer knows {tokenizer_size} tokens and the model has weights for {vocabulary_size}: {rows}",
        "These rows use tokens that were added without training them. Upload the model with its weights "
        "resized, or avoid those tokens.",
    ),
    "ROWS_CUT": Kind(
        "WARNING",
        "cut off at {cutoff} tokens: {rows}, which lose {cut_tokens} tokens",
        "Raise the cut-off length if the ends matter; the longest row has {longest} tokens.",
    ),
    "ROWS_DROPPED": Kind(
        "WARNING",
        "dropped: {rows}, of which nothing to train is left",
        "Raise the cut-off length, shorten what stands before the answers, or give these rows an answer.",
    ),
    "CUTOFF_LOWERED": Kind(
        "WARNING",
        "rows are cut at {cutoff} tokens, the context length of the base model",
        "The model cannot read more.",
    ),
    "PROMPT_CHANGES": Kind(
        "WARNING",
        "the end of the prompt is tokenized otherwise when the answer follows: {rows}",
        "The model is asked with other tokens than it was trained on. End the prompt where a word ends, and "
        "put the space before the answer into the answer.",
    ),
    "PROMPT_DIFFERS": Kind(
        "WARNING",
        "the prompt that the template makes when the model is served differs from what stands before the "
        "answer in training",
        "Compare both with `firectl dataset inspect`, and mend the template.",
    ),
    "STOP_ADDED": Kind(
        "WARNING",
        "the stop token lies outside the spans that the template marks: {rows}",
        "It is trained all the same, so that the model learns to stop. Put it inside the marks.",
    ),
    "NO_STOP": Kind(
        "WARNING",
        "an answer does not end with a stop token: {rows}",
        "The model does not learn to stop there. Have the template write the stop token after each answer.",
    ),
    "EMPTY_ANSWER": Kind(
        "WARNING",
        "an answer is empty or nothing but white space: {rows}",
        "The model learns to say nothing there. Leave these rows out unless that is meant.",
    ),
    "SAME_ANSWER": Kind(
        "WARNING",
        "all {rows} have the same answer",
        "The model learns to say it whatever it is asked.",
    ),
    "SPECIALS_TYPED": Kind(
        "WARNING",
        "the text spells special tokens of the model: {rows}",
        "They are read as ordinary text, as they are when the model is served. A template that was applied "
        "beforehand must not be applied again: upload messages without it.",
    ),
    "CONTENT_LOST": Kind(
        "WARNING",
        "the template leaves out what a user or system message says: {rows}",
        "Look at the preview. Give the job a template that writes it.",
    ),
    "TOOLS_LOST": Kind(
        "WARNING",
        "the template leaves out the tools: {rows}",
        "The model learns calls of tools that it was not told of. Give the job a template that writes them.",
    ),
    "TOOLS_IN_WORDS": Kind(
        "WARNING",
        "the template shows tools in a form of which the engine reads no calls: {rows}",
        "When the model is served, it is told of tools in words and is to call them in JSON, which is not "
        "what it learns here. Ask it through /completions, or train with a template of the base model's "
        "form.",
    ),
    "GENERIC_TEMPLATE": Kind(
        "WARNING",
        "the base model has no chat template and the job gives none: the generic one is used",
        "The adapter carries it. Give a template to choose the form yourself.",
    ),
    "DUPLICATE_ROWS": Kind(
        "WARNING",
        "rows that say what an earlier row says: {rows}",
        "They count more than others, and some may be evaluated on that are trained on.",
    ),
    "ROWS_IN_BOTH": Kind(
        "WARNING",
        "rows of the evaluation dataset that are trained on as well: {rows}",
        "The evaluation looks better than it is. Leave them out of one of the two.",
    ),
    "ONE_LABEL": Kind("WARNING", "all {rows} have the label {label}", "Add rows of the other labels."),
    "SIMILAR_LABELS": Kind(
        "WARNING",
        "labels that differ only in case or white space: {labels}",
        "The model learns them as different ones. Write each label in one way.",
    ),
}


@dataclass(frozen=True)
class Finding:
    code: str
    severity: Severity
    sentence: str
    hint: str
    rows: int = 0
    """How many rows it is about; 0 where it is about the whole."""
    places: list[str] = field(default_factory=list)
    """File and line of the first of them; of errors with what is wrong there."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def told(self) -> str:
        """The sentence, with the first of the places."""
        if not self.places:
            return self.sentence
        more = "; …" if self.rows > len(self.places[:SHOWN_PLACES]) else ""
        return f"{self.sentence} ({'; '.join(self.places[:SHOWN_PLACES])}{more})"


SHOWN_PLACES = 3


@dataclass(frozen=True)
class Facts:
    train: Counts
    evaluation: Counts | None = None
    repeats: Repeats = field(default_factory=Repeats)
    in_both: Repeats = field(default_factory=Repeats)
    cutoff: int = 0
    asked_cutoff: int = 0
    """What the job asks for; more than the model can read is lowered to `cutoff`."""
    epochs: float = 1.0
    origin: str = OF_MODEL
    prompt_differs: bool = False
    tools_in_words: bool = False
    """The engine does not read the calls that the template writes."""
    tokenizer_size: int = 0
    vocabulary_size: int = 0
    """Of the model: the tokens that it has weights for."""


def find(facts: Facts) -> list[Finding]:
    """All findings, the errors first; each in the order of the table."""
    order = list(FINDINGS)
    return sorted(_all(facts), key=lambda one: (one.severity != "ERROR", order.index(one.code)))


def refuse(findings: list[Finding]) -> None:
    """Raise TrainingFailure with all errors, if there are any."""
    errors = [finding for finding in findings if finding.severity == "ERROR"]
    if not errors:
        return
    lines = [finding.told() for finding in errors]
    message = lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} findings:", *lines])
    raise TrainingFailure("INVALID_ARGUMENT", errors[0].code, message)


def _all(facts: Facts) -> Iterator[Finding]:
    yield from _of_rows(facts.train, facts)
    if facts.evaluation is not None:
        for found in _of_rows(facts.evaluation, facts):
            yield replace(found, sentence=f"of the evaluation dataset: {found.sentence}")
    yield from _of_whole(facts)
    yield from _of_labels(facts.train)


def _of_rows(counts: Counts, facts: Facts) -> Iterator[Finding]:
    for code in FINDINGS:
        if counts.notes[code]:
            places = counts.messages.get(code) or counts.places[code]
            yield _finding(
                code,
                counts.notes[code],
                places,
                cutoff=facts.cutoff,
                cut_tokens=f"{counts.cut_tokens:,}",
                longest=f"{counts.longest_row:,}",
                tokenizer_size=facts.tokenizer_size,
                vocabulary_size=facts.vocabulary_size,
            )
    failed = sum(counts.notes[code] for code in counts.messages)
    if counts.rows_in == 0:
        yield _finding("EMPTY_DATASET")
    elif not counts.rows_trained and not failed:
        code = "ALL_ROWS_TRUNCATED" if counts.truncated_rows else "NOTHING_TO_TRAIN"
        yield _finding(code, counts.rows_in, cutoff=facts.cutoff)


def _of_whole(facts: Facts) -> Iterator[Finding]:
    seen = math.ceil(facts.train.rows_trained * facts.epochs)
    if seen > MAX_EXAMPLES:
        yield _finding("TOO_MANY_EXAMPLES", seen=f"{seen:,}", most=f"{MAX_EXAMPLES:,}")
    if facts.asked_cutoff > facts.cutoff:
        yield _finding("CUTOFF_LOWERED", cutoff=facts.cutoff)
    if facts.prompt_differs:
        yield _finding("PROMPT_DIFFERS")
    if facts.tools_in_words and facts.train.notes[TOOLS_SHOWN]:
        yield _finding("TOOLS_IN_WORDS", facts.train.notes[TOOLS_SHOWN])
    if facts.origin == GENERIC:
        yield _finding("GENERIC_TEMPLATE")
    if facts.train.rows_trained > 1 and len(facts.train.answers) == 1:
        yield _finding("SAME_ANSWER", facts.train.rows_trained)
    for code, repeats in (("DUPLICATE_ROWS", facts.repeats), ("ROWS_IN_BOTH", facts.in_both)):
        if repeats.count:
            yield _finding(code, repeats.count, repeats.places)


def _of_labels(counts: Counts) -> Iterator[Finding]:
    if len(counts.labels) == 1 and counts.rows_trained > 1:
        yield _finding("ONE_LABEL", counts.rows_trained, label=repr(next(iter(counts.labels))))
    alike: dict[str, list[str]] = {}
    for label in counts.labels:
        alike.setdefault(" ".join(label.casefold().split()), []).append(repr(label))
    similar = [", ".join(sorted(labels)) for labels in alike.values() if len(labels) > 1]
    if similar:
        yield _finding("SIMILAR_LABELS", labels="; ".join(similar[:10]))


def _finding(code: str, rows: int = 0, places: list[str] | None = None, **words: Any) -> Finding:
    kind = FINDINGS[code]
    words["rows"] = "1 row" if rows == 1 else f"{rows:,} rows"
    return Finding(
        code, kind.severity, kind.sentence.format(**words), kind.hint.format(**words), rows, places or []
    )
