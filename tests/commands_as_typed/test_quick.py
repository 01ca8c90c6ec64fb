"""Every command line that needs no engine, as typed, against a running server."""

from __future__ import annotations

import pytest

from tests.commands_as_typed.checking import run_and_check
from tests.commands_as_typed.table import Entry, of_tier


@pytest.mark.parametrize("entry", of_tier("quick"), ids=lambda entry: entry.line[8:90])
def test_a_line_does_what_it_says(entry: Entry, world, firectl):
    run_and_check(entry, world, firectl)
