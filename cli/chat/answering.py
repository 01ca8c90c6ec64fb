"""One question to a model, and its answer: in pieces as they come, or whole."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.chat.sse import event_data
from cli.connection.client import ApiClient
from cli.errors import CliError, api_error

_DONE = "[DONE]"


@dataclass
class Answer:
    """What a model has said so far. A whole one has a reason for its end."""

    text: str = ""
    finish_reason: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    """The response as it came; empty for one that came in pieces."""
    asked_at: float = field(default_factory=time.monotonic)
    first_at: float = 0.0
    last_at: float = 0.0

    @property
    def account(self) -> str:
        """What it took: tokens, the time to the first of them, and the speed of the others."""
        parts = []
        if self.usage:
            counts = self.usage.get("prompt_tokens", 0), self.usage.get("completion_tokens", 0)
            parts.append("{} tokens asked, {} answered".format(*counts))
        if self.first_at:
            parts.append(f"first after {self.first_at - self.asked_at:.2f} s")
        if speed := self._speed():
            parts.append(f"{speed:.1f} tokens/s")
        if self.finish_reason == "length":
            parts.append("ended by --max-tokens or the context's length")
        return ", ".join(parts)

    def _speed(self) -> float:
        tokens, seconds = int(self.usage.get("completion_tokens") or 0), self.last_at - self.first_at
        return (tokens - 1) / seconds if tokens > 1 and seconds > 0 else 0.0


def whole(client: ApiClient, name: str, body: Mapping[str, Any], answer: Answer) -> None:
    """Asks for the answer in one piece, and puts it into `answer`."""
    answer.document = client.ask(name, {**body, "stream": False})
    choice = (answer.document.get("choices") or [{}])[0]
    answer.text = _text(choice, "message")
    answer.finish_reason = str(choice.get("finish_reason") or "")
    answer.usage = answer.document.get("usage") or {}


def in_pieces(
    client: ApiClient,
    name: str,
    body: Mapping[str, Any],
    answer: Answer,
    write: Callable[[str], None],
    write_thought: Callable[[str], None],
) -> None:
    """Writes the answer as it comes and keeps it in `answer`, which holds what came when it breaks off."""
    for event in _events(client, name, {**body, "stream": True}):
        choice = (event.get("choices") or [{}])[0]
        answer.usage = event.get("usage") or answer.usage
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        if thought := (choice.get("delta") or {}).get("reasoning_content"):
            write_thought(thought)
        if text := _text(choice, "delta"):
            answer.last_at = time.monotonic()
            answer.first_at = answer.first_at or answer.last_at
            answer.text += text
            write(text)


def _events(client: ApiClient, name: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a stream that ends as it should; an error in it, or a missing end, is raised."""
    import httpx

    with client.opened(name, body) as response:
        try:
            for data in event_data(response.iter_bytes()):
                if data.startswith(_DONE):
                    return
                yield _event(data, name)
        except httpx.TimeoutException:
            raise _cut_off("the server fell silent") from None
        except httpx.TransportError as error:
            raise _cut_off(str(error) or type(error).__name__) from None
    raise _cut_off("the server stopped before its end")


def _event(data: str, name: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise CliError("the answer was cut off: the server sent something that is not JSON")
    if "error" in event:
        raise api_error(502, event, f"/v1/{name}")
    return event


def _cut_off(reason: str) -> CliError:
    return CliError(f"the answer was cut off: {reason}", advice=["ask again"])


def _text(choice: Mapping[str, Any], key: str) -> str:
    """The text of a choice: a chat's stands in a message, a completion's in the choice itself."""
    return str((choice.get(key) or {}).get("content") or choice.get("text") or "")
