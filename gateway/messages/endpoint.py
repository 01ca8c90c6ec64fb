"""`messages`: the endpoint that Anthropic's clients ask."""

from __future__ import annotations

from gateway.exchange import Kind
from gateway.messages.answer import MessageVoice
from gateway.messages.request import translate_messages

MESSAGES = Kind(
    "messages",
    translate_messages,
    MessageVoice,
    "chat/completions",
    needs_chat=True,
    id_header=b"request-id",
)
