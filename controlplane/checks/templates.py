"""What a chat template of an addon's own must keep to, wherever it comes from."""

from __future__ import annotations

MOST_CHARACTERS = 64 * 1024
"""Engines are sent it with each request, and read a new one while all others wait."""


def too_long(template: str) -> str | None:
    """What is wrong with its length, as the end of a sentence."""
    if len(template) <= MOST_CHARACTERS:
        return None
    return (
        f"has {len(template):,} characters; a template that goes with an addon may have {MOST_CHARACTERS:,}"
    )
