"""The pages that are made from the code, and what makes each."""

from __future__ import annotations

from collections.abc import Callable

from docs.generator.api import api_page
from docs.generator.firectl import firectl_page
from docs.generator.inference import inference_page

PAGES: dict[str, Callable[[], str]] = {
    "api.md": api_page,
    "inference.md": inference_page,
    "firectl.md": firectl_page,
}
