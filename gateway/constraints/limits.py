"""Every bound on what a caller may constrain an answer with. What is larger is refused, with its place."""

from __future__ import annotations

GRAMMAR_CHARACTERS = 32 * 1024
GRAMMAR_RULES = 500
GROUP_DEPTH = 50
REPEATS = 1000
"""The largest number in `{m,n}`."""
EXPANDED_PARTS = 20_000
"""Parts of a grammar with every counted repetition written out."""
READINGS = 50
"""Ways in which an engine may have to read the same text at once."""
AUTOMATON_PLACES = 15_000
AUTOMATON_STATES = 100
"""An engine takes some seconds to get ready for this many."""
AUTOMATON_WORK = 60_000
"""Steps of making an automaton: about a tenth of a second."""

TRIAL_ANSWERS = 3
TRIAL_CHARACTERS = 48
"""Of each answer by which a grammar that recurses is tried."""
TRIAL_CHOICES = 16
TRIAL_WORK = 300_000
"""About a tenth of a second. Grammars in use take a tenth of it at most."""

WALKED_PARTS = 200_000
AUTOMATON_STATES_TOGETHER = 1000
WRITTEN_CHARACTERS = 1_000_000
"""Of a grammar as the engine is given it."""

SCHEMA_BYTES = 256 * 1024
"""Of one schema, and of all functions together."""
SCHEMA_NODES = 1000
SCHEMA_DEPTH = 40
SCHEMA_RULES = 6000
"""Rules that schemas may become, which are about two for each part."""
ENUM_VALUES = 1000
ENUM_CHARACTERS = 50_000
OPEN_NAMES = 4000
"""Characters of the properties that other keys of open objects must be told apart from."""
OPEN_NAME = 100
COUNTED = 1000
"""Lengths and sizes that a schema asks for; larger ones are not enforced."""
COUNTED_TOGETHER = 5000

KEPT_BYTES = 64 * 1024
"""Schemas and lists of functions up to this size are kept as read, for when they come again."""

TOOLS = 128
CALLS = 16
"""Calls in one answer."""
UNENFORCED_CHARACTERS = 1000
"""Of the header that lists what is not enforced."""
