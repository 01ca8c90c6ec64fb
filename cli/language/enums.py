"""Fields that take one of a few words: the server knows which, and here the near ones are found."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cli.errors import ApiError

_REFUSAL = re.compile(r"'([^']{1,100})' is none of ([\w, ]+)")
_SHOWN = 3


@contextmanager
def near_values() -> Iterator[None]:
    """Adds to a refusal of a value those of the field's values that look like it."""
    try:
        yield
    except ApiError as error:
        near = _near(" ".join([error.message, *error.details]))
        if near:
            error.advice.insert(0, f"did you mean {' or '.join(near)}?")
        raise


def _near(text: str) -> list[str]:
    import difflib

    found = _REFUSAL.search(text)
    if found is None:
        return []
    given, values = found[1].upper(), [value for value in found[2].split(", ") if "UNSPECIFIED" not in value]
    within = [value for value in values if given in value]
    return (within or difflib.get_close_matches(given, values, n=_SHOWN))[:_SHOWN]
