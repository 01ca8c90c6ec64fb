"""A conversation at the terminal: lines in, answers out, until Ctrl-D."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli.chat.answering import Answer
from cli.errors import ApiError, CliError, render_error
from cli.show.output import Output

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

Messages = list[dict[str, str]]

_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)
_HELP = (
    "/exit          end, as Ctrl-D does",
    "/reset         forget what was said",
    "/system TEXT   say how the model is to behave; without TEXT, nothing of the kind",
    "/help          show this",
    "Ctrl-C stops an answer. Alt-Enter begins a new line; pasted lines stay together.",
)
_HOPELESS = frozenset({401, 403, 404})  # the next question would be refused as well


class Ended(Exception):
    """The person has had enough."""


@dataclass
class Conversation:
    """What was said, and the instruction before it."""

    system: str = ""
    turns: Messages = field(default_factory=list)

    @property
    def messages(self) -> Messages:
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.turns]


def converse(
    output: Output,
    conversation: Conversation,
    ask: Callable[[Messages, Answer], None],
    read: Callable[[], str],
) -> None:
    """Reads and answers. `ask` writes an answer while it comes and keeps it in what it is given."""
    while True:
        try:
            text = read().strip()
            if not text:
                continue
            if not _obeyed(output, conversation, text):
                _take_turn(output, conversation, text, ask)
        except KeyboardInterrupt:
            continue  # at the prompt, it throws away what was typed
        except (EOFError, Ended):
            return


def _take_turn(
    output: Output, conversation: Conversation, text: str, ask: Callable[[Messages, Answer], None]
) -> None:
    """Asks. What came of an answer that broke off is part of the conversation; a question without is not."""
    answer = Answer()
    conversation.turns.append({"role": "user", "content": text})
    try:
        ask(conversation.messages, answer)
    except KeyboardInterrupt:
        output.warn("(stopped)")
    except CliError as error:
        if isinstance(error, ApiError) and error.status in _HOPELESS:
            raise
        render_error(error, output.stderr)
    finally:
        if answer.text:
            conversation.turns.append({"role": "assistant", "content": answer.text})
        else:
            conversation.turns.pop()


def _obeyed(output: Output, conversation: Conversation, text: str) -> bool:
    """Whether the text was a command, such as `/reset`. `/etc/hosts says …` is none."""
    found = _COMMAND.fullmatch(text)
    if found is None:
        return False
    name, rest = found[1], (found[2] or "").strip()
    if name in ("exit", "quit", "bye"):
        raise Ended
    if name == "reset":
        conversation.turns.clear()
        output.warn("Forgotten.")
    elif name == "system":
        conversation.system = rest
        output.warn(f"System: {rest}" if rest else "No system message.")
    else:
        for line in _HELP if name in ("help", "?") else (f"There is no /{name}.", *_HELP):
            output.warn(line)
    return True


def terminal_reader() -> Callable[[], str]:
    """Reads from the terminal, and shows its prompt on stderr: stdout holds nothing but answers."""
    session = _prompt_session()
    return lambda: session.prompt("> ", prompt_continuation="  ")


def _prompt_session() -> "PromptSession[str]":
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import create_output

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(key_bindings=keys, output=create_output(stdout=sys.stderr))
