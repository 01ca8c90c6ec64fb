"""docs/operations.md names every setting, with its default, and no other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from controlplane.config import Settings
from tests.docs.shown import FILES, OPERATIONS, table_rows
from workers.runtimes.accelerators import GPUS_VARIABLE

ROWS = {row[0].strip("`"): row[1:] for row in table_rows(OPERATIONS, r"`HEARTH_\w+`")}
FIELDS = {f"HEARTH_{name.upper()}": field for name, field in Settings.model_fields.items()}
# Read by workers alone, and no part of the settings.
OTHERS = {GPUS_VARIABLE}


def test_the_table_names_every_setting_and_no_other() -> None:
    assert ROWS.keys() == FIELDS.keys()


def test_no_setting_is_named_twice() -> None:
    assert len(table_rows(OPERATIONS, r"`HEARTH_\w+`")) == len(ROWS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_table_has_the_default_and_a_meaning(name: str) -> None:
    default, meaning = ROWS[name]
    assert default == shown_default(FIELDS[name])
    assert meaning


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_documents_name_no_setting_that_does_not_exist(file: Any) -> None:
    named = re.findall(r"\bHEARTH_[A-Z0-9_]*[A-Z0-9]\b(?!\*)", file.read_text(encoding="utf-8"))
    assert set(named) - FIELDS.keys() - OTHERS == set()


def shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    value = field.default
    return f"`{int(value) if isinstance(value, float) and value.is_integer() else value}`"
