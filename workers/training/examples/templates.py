"""Chat templates of users, rendered so that what is trained can be told from what is not.

A template says in one of three ways which text the model is to learn:

- `unk_token`: rendered with `mode='train'`, it writes `unk_token` before and after each answer;
- `generation`: answers stand inside `{% generation %}` … `{% endgeneration %}`;
- `prefix`: it says nothing; the answer is what the rendering gains over the prompt that asks for it.

All three come out alike: text in which a mark, a character that occurs nowhere else in it, opens and closes
each trained span. Rendering runs programs of users: call it through `renderer`, in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARACTERS = 1_000_000
MAX_RENDERED_CHARACTERS = 64_000_000
MAX_MESSAGE = 300

Message = dict[str, Any]


class TemplateProblem(Exception):
    """The template cannot be used, or not on this row; the text is a fragment for its owner."""


@dataclass(frozen=True)
class Row:
    """What a template gets of one row of a dataset. `weights`: of each message, 0 or 1."""

    messages: Sequence[Message]
    tools: Sequence[Any] | None
    weights: Sequence[int]

    def trained(self) -> list[int]:
        """The messages that are learned, by index."""
        return [
            index
            for index, message in enumerate(self.messages)
            if message.get("role") == "assistant" and self.weights[index]
        ]


class ChatTemplate:
    """A compiled template. `tokens`: `bos_token` and the tokenizer's other special tokens, by their names.

    `day`: what `strftime_now` tells; today in UTC where nobody says.
    """

    def __init__(self, source: str, tokens: Mapping[str, str], day: date | None = None) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateProblem(f"it is longer than {MAX_TEMPLATE_CHARACTERS} characters")
        self._tokens = dict(tokens)
        self._mark = ""
        environment = _environment(self._marked, day or datetime.now(UTC).date())
        try:
            tree = environment.parse(source)
            self.way = _way_of(tree)
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateProblem(f"it does not parse at line {error.lineno}: {error.message}") from None
        except Exception as error:  # Constant expressions are computed while compiling.
            raise TemplateProblem(_why(error)) from error

    def render_marked(self, row: Row, mark: str) -> list[str]:
        """The row's training texts, each trained span between two marks.

        That is one text; several where the template writes an answer differently once the talk has gone on
        (as those do that drop earlier reasoning): then each answer is trained as it was when it was given.
        """
        if not row.trained():
            raise TemplateProblem("no assistant message is to be trained")
        if self.way == "prefix":
            return self._mark_by_prefix(row, mark)
        self._mark = mark
        try:
            text = self._render(row, row.messages, training=True, mark=mark)
        finally:
            self._mark = ""
        return [_unmark_untrained(text, mark, row)]

    def render_prompt(self, row: Row) -> str:
        """What the row's last trained answer is asked with when the model is served."""
        return self._render(row, row.messages[: row.trained()[-1]], prompting=True)

    def _mark_by_prefix(self, row: Row, mark: str) -> list[str]:
        spans = [(self._prompt(row, index), self._answered(row, index)) for index in row.trained()]
        for (prompt, answered), index in zip(spans, row.trained(), strict=True):
            if not answered.startswith(prompt):
                raise TemplateProblem(
                    f"what it writes for message {index} does not start with the prompt that asks for it; "
                    "put {% generation %} and {% endgeneration %} around the answers"
                )
        whole = self._render(row, row.messages)
        # Some templates end every text with the end-of-text token, which goes when the talk goes on.
        closing = self._tokens.get("eos_token", "")
        ends = [
            len(answered if whole.startswith(answered) else answered.removesuffix(closing))
            for _, answered in spans
        ]
        if all(whole.startswith(answered[:end]) for (_, answered), end in zip(spans, ends, strict=True)):
            starts = [len(prompt) for prompt, _ in spans]
            return [_insert(whole, list(zip(starts, ends, strict=True)), mark)]
        return [_insert(answered, [(len(prompt), len(answered))], mark) for prompt, answered in spans]

    def _prompt(self, row: Row, index: int) -> str:
        return self._render(row, row.messages[:index], prompting=True)

    def _answered(self, row: Row, index: int) -> str:
        return self._render(row, row.messages[: index + 1])

    def _render(
        self,
        row: Row,
        messages: Sequence[Message],
        *,
        prompting: bool = False,
        training: bool = False,
        mark: str = "",
    ) -> str:
        variables: dict[str, Any] = {
            "unk_token": "",
            "bos_token": "",
            **self._tokens,
            "messages": list(messages),
            "tools": row.tools,
            "documents": None,
            "add_generation_prompt": prompting,
            "mode": "generate",
        }
        if training and self.way == "unk_token":
            variables |= {"mode": "train", "unk_token": mark}
        pieces, length = [], 0
        try:
            for piece in self._template.generate(variables):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_RENDERED_CHARACTERS:
                    break
        except Exception as error:
            raise TemplateProblem(_why(error)) from error
        if length > MAX_RENDERED_CHARACTERS:
            raise TemplateProblem(f"it writes more than {MAX_RENDERED_CHARACTERS} characters")
        return "".join(pieces)

    def _marked(self, text: str) -> str:
        return f"{self._mark}{text}{self._mark}"


class _GenerationBlock(Extension):
    """`{% generation %}` … `{% endgeneration %}`: the body, passed through the environment's `mark`."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        mark: Callable[[str], str] = self.environment.mark  # type: ignore[attr-defined]
        return mark(caller())


def _environment(mark: Callable[[str], str], day: date) -> ImmutableSandboxedEnvironment:
    """Blocks, filters and functions as chat templates know them; no loader, so nothing can be included."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.extend(mark=mark)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: day.strftime(form)
    return environment


def _way_of(tree: nodes.Template) -> str:
    if {"mode", "unk_token"} <= meta.find_undeclared_variables(tree):
        return "unk_token"
    return "generation" if tree.find(nodes.ExtensionAttribute) else "prefix"


def _unmark_untrained(text: str, mark: str, row: Row) -> str:
    """The text without the marks around answers of weight 0."""
    pieces = text.split(mark)
    if len(pieces) == 1:
        raise TemplateProblem("it marks no text to train on")
    if len(pieces) % 2 == 0:
        raise TemplateProblem("it opens a trained span that it does not close")
    weights = [row.weights[i] for i, message in enumerate(row.messages) if message.get("role") == "assistant"]
    if all(weights):
        return text
    if len(weights) != len(pieces) // 2:
        raise TemplateProblem(
            f"it marks {len(pieces) // 2} spans for {len(weights)} assistant messages, so it is not known "
            "which of them have weight 0"
        )
    marked = [pieces[0]]
    for weight, span, rest in zip(weights, pieces[1::2], pieces[2::2], strict=True):
        marked += [mark + span + mark if weight else span, rest]
    return "".join(marked)


def _insert(text: str, spans: Sequence[tuple[int, int]], mark: str) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], mark, text[start:end], mark]
        done = end
    return "".join([*pieces, text[done:]])


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    # Not jinja's own: that one escapes characters of HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: Any) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    if isinstance(error, RecursionError):
        return "it calls itself too deeply"
    text = str(error) or type(error).__name__
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
