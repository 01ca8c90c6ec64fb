"""Whose chat template a job is trained with: a table, over rows that are no database's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workers.reconcile.fine_tuning.spec import chat_template
from workers.training.examples.generic import GENERIC_TEMPLATE

OWN, OF_BASE, OF_ADDON = "{{ own }}", "{{ base }}", "{{ addon }}"


class Rows:
    """As much of a session as reads models by their uid."""

    def __init__(self, **templates: str) -> None:
        self.templates = templates

    def get_one(self, table: Any, uid: str) -> Any:
        template = self.templates.get(uid)
        return SimpleNamespace(conversation_config={"template": template} if template else None)


@pytest.mark.parametrize(
    ("kind", "given", "base", "addon", "expected"),
    [
        ("conversation", OWN, OF_BASE, None, OWN),
        ("conversation", "", OF_BASE, None, None),
        ("conversation", "", "", None, GENERIC_TEMPLATE),
        ("conversation", "", OF_BASE, OF_BASE, None),
        ("conversation", "", OF_BASE, OF_ADDON, OF_ADDON),
        ("conversation", "", "", OF_ADDON, OF_ADDON),
        ("conversation", OWN, OF_BASE, OF_ADDON, OWN),
        ("preference", "", "", None, GENERIC_TEMPLATE),
        ("text_completion", "", "", None, None),
        ("text_classification", "", OF_BASE, None, None),
    ],
)
def test_a_job_speaks_its_own_template_else_that_of_what_it_goes_on_from(
    kind: str, given: str, base: str, addon: str | None, expected: str | None
) -> None:
    row: Any = SimpleNamespace(kind=kind, base_model_uid="base", warm_start_uid="addon" if addon else None)
    session: Any = Rows(base=base, **({"addon": addon} if addon else {}))

    assert chat_template(session, row, {"jinja_template": given}) == expected
