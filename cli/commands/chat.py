"""Questions to a model from the terminal: a conversation, one message, or a text to go on with."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from cli.chat.answering import Answer, in_pieces, whole
from cli.chat.asking import advise, identifier, look_up
from cli.chat.conversation import Conversation, converse, terminal_reader
from cli.connection.session import Session
from cli.errors import ApiError, CliError, UsageError
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.show.terminal import is_terminal, wants_colour

_SAMPLING = (
    Flag("temperature", "temperature", "0 takes the likeliest word always.", Kind.NUMBER, group="Sampling"),
    Flag("top-p", "top_p", "Take from the likeliest words of this share.", Kind.NUMBER, group="Sampling"),
    Flag("max-tokens", "max_tokens", "End the answer there.", Kind.INTEGER, group="Sampling"),
    Flag("seed", "seed", "The same seed gives the same answer again.", Kind.INTEGER, group="Sampling"),
)
_MODEL = typer.Argument(
    metavar="MODEL", help="An id or a name, of a model, a deployed model or a deployment."
)
_STOP = typer.Option("--stop", help="End the answer before this text; up to four times.")
_DEPLOYMENT = typer.Option("--deployment", help="The deployment that is to answer, where several could.")
_WHOLE = typer.Option("--no-stream/--stream", help="Show the answer when it is whole, not as it comes.")
_FORMAT = typer.Option("--response-format", help="json: the answer is to be JSON.", metavar="text|json")
_SCHEMA = typer.Option("--json-schema", help="A file with the JSON Schema of the answer.", metavar="FILE")
_VERBOSE = typer.Option("--verbose", help="Tell what it took, on stderr; on a terminal that is the default.")


@command(
    "chat",
    flags=_SAMPLING,
    example='firectl chat my-model --message "Why is the sky blue?"',
    see_also=("complete", "list deployed-models", "create deployment"),
)
def chat(
    session: Session,
    fields: Fields,
    model: Annotated[str, _MODEL],
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", help="What to say; by default it is asked for, or read from a pipe."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="How the model is to behave.")] = None,
    stop: Annotated[list[str] | None, _STOP] = None,
    response_format: Annotated[str | None, _FORMAT] = None,
    json_schema: Annotated[Path | None, _SCHEMA] = None,
    deployment: Annotated[str | None, _DEPLOYMENT] = None,
    no_stream: Annotated[bool, _WHOLE] = False,
    verbose: Annotated[bool, _VERBOSE] = False,
) -> None:
    """Talk to a model. What comes through a pipe is one message; a terminal holds a conversation."""
    asked = Question(
        session, "chat/completions", identifier(session, model, deployment), not no_stream, verbose
    )
    asked.body |= {**fields.body, **_stop(stop), **_format(response_format, json_schema)}
    conversation = Conversation(system or "")
    if message is None and _is_watched(sys.stdin) and is_terminal(session.output.stderr):
        _hold(session, asked, conversation)
        return
    text = _given("message", message)
    conversation.turns.append({"role": "user", "content": text})
    asked.ask({"messages": conversation.messages}, Answer())


@command(
    "complete",
    flags=_SAMPLING,
    example='firectl complete my-model "Once upon a time" --max-tokens 20',
    see_also=("chat", "list deployed-models"),
)
def complete(
    session: Session,
    fields: Fields,
    model: Annotated[str, _MODEL],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="The text to go on with; by default stdin.")
    ] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Begin the answer with the prompt.")] = False,
    stop: Annotated[list[str] | None, _STOP] = None,
    response_format: Annotated[str | None, _FORMAT] = None,
    json_schema: Annotated[Path | None, _SCHEMA] = None,
    deployment: Annotated[str | None, _DEPLOYMENT] = None,
    no_stream: Annotated[bool, _WHOLE] = False,
    verbose: Annotated[bool, _VERBOSE] = False,
) -> None:
    """Have a model go on with a text, as it stands: without a chat template."""
    asked = Question(session, "completions", identifier(session, model, deployment), not no_stream, verbose)
    asked.body |= {**fields.body, **_stop(stop), **_format(response_format, json_schema)}
    asked.ask({"prompt": _given("prompt", prompt), **({"echo": True} if echo else {})}, Answer())


class Question:
    """How a command asks: which model, with what settings, and how the answer is shown."""

    def __init__(self, session: Session, path: str, model: str, stream: bool, verbose: bool) -> None:
        self.body: dict[str, Any] = {"model": model}
        self._session = session
        self._path = path
        self._stream = stream and not session.output.as_json
        output = session.output
        self._tells_cost = verbose or (is_terminal(output.stdout) and output.live)

    def ask(self, content: dict[str, Any], answer: Answer) -> None:
        """Asks and shows; `answer` holds what came, whatever goes wrong."""
        output, body = self._session.output, {**self.body, **content}
        with self._refusals_explained():
            if self._stream:
                with _line_ended(output.stdout, answer):
                    in_pieces(self._session.client, self._path, body, answer, *self._writers())
            else:
                whole(self._session.client, self._path, body, answer)
                self._show(answer)
        if self._tells_cost and answer.account:
            output.warn(f"({answer.account})")

    def _show(self, answer: Answer) -> None:
        if self._session.output.as_json:
            self._session.output.json(answer.document)
            return
        with _line_ended(self._session.output.stdout, answer):
            self._writers()[0](answer.text)

    def _writers(self) -> tuple[Callable[[str], None], Callable[[str], None]]:
        """How to write what is said, and what is thought before: that is for people who watch."""
        output = self._session.output
        if not output.live:
            return _writer(output.stdout), lambda thought: None
        return _writer(output.stdout), _writer(output.stderr, dim=wants_colour(output.stderr))

    @contextmanager
    def _refusals_explained(self) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            advise(self._session, error, self.body["model"])
            raise


def _hold(session: Session, asked: Question, conversation: Conversation) -> None:
    """A conversation at the terminal. That the model is there is seen before somebody types for nothing."""
    if session.output.as_json:
        raise UsageError("-o json takes one message", advice=['add --message "TEXT"'])
    if not session.dry_run:
        card = look_up(session, asked.body["model"])
        session.output.note(f"{card.get('id')} listens. /help shows what else one can type; Ctrl-D ends.")
    converse(
        session.output,
        conversation,
        lambda messages, answer: asked.ask({"messages": messages}, answer),
        terminal_reader(),
    )


def _given(what: str, text: str | None) -> str:
    """The text of the command line, or all of stdin."""
    if text is None:
        text = _read_all()
    if not text.strip():
        raise UsageError(f"there is no {what}: give it on the command line, or through a pipe")
    return text


def _read_all() -> str:
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise CliError(f"what came through the pipe is no text: {error.reason}") from None


def _is_watched(stream: TextIO | None) -> bool:
    return stream is not None and is_terminal(stream)


def _stop(texts: list[str] | None) -> dict[str, Any]:
    return {"stop": texts} if texts else {}


def _format(wanted: str | None, schema: Path | None) -> dict[str, Any]:
    """The request's field for the form of the answer."""
    if wanted not in (None, "text", "json", "json_object"):
        raise UsageError(f'--response-format is text or json, not "{wanted}"')
    if schema is None:
        return {"response_format": {"type": "json_object"}} if wanted in ("json", "json_object") else {}
    if wanted == "text":
        raise UsageError("--json-schema gives JSON, and --response-format says text")
    try:
        read = json.loads(schema.read_text())
    except ValueError as error:
        raise CliError(f"{schema} holds no JSON: {error}") from None
    described = {"name": "answer", "schema": read}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _writer(stream: TextIO, dim: bool = False) -> Callable[[str], None]:
    """Writes pieces at once. On a terminal, nothing that a model says moves the cursor."""
    watched = is_terminal(stream)

    def write(text: str) -> None:
        shown = _harmless(text) if watched else text
        stream.write(f"\x1b[2m{shown}\x1b[0m" if dim else shown)
        stream.flush()

    return write


def _harmless(text: str) -> str:
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


@contextmanager
def _line_ended(stream: TextIO, answer: Answer) -> Iterator[None]:
    """Whatever is written next begins a line of its own."""
    try:
        yield
    finally:
        if answer.text and not answer.text.endswith("\n"):
            stream.write("\n")
            stream.flush()
