"""Reads a model's generation_config.json: how the engine samples where a request does not say."""

from __future__ import annotations

from typing import Any

from controlplane.checks.problems import FileSource, InvalidFile, ProblemList
from controlplane.checks.wording import shown
from workers.validation.json_files import read_json_object

GENERATION_CONFIG = "generation_config.json"

# The settings that the engine takes from the file: least, most, and whether it must be whole.
RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 100, False),
    "top_p": (0, 1, False),
    "top_k": (-1, 1 << 24, True),
    "min_p": (0, 1, False),
    "repetition_penalty": (0, 100, False),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
    "max_new_tokens": (1, 1 << 24, True),
}
ABOVE_ZERO = ("top_p", "repetition_penalty")
REQUEST_NAMES = {"max_new_tokens": "max_tokens"}
"""What requests call a setting, where the file has another name for it."""


def read_generation_config(
    source: FileSource, prefix: str, files: dict[str, int], problems: ProblemList
) -> dict[str, float]:
    """The sampling parameters that the file sets, by the names that requests use."""
    if GENERATION_CONFIG not in files:
        return {}
    try:
        config = read_json_object(source, prefix + GENERATION_CONFIG)
    except InvalidFile as error:
        problems.add_invalid(GENERATION_CONFIG, error)
        return {}
    found = {}
    for name in RANGES:
        if config.get(name) is None:
            continue
        if complaint := _complaint(name, config[name]):
            problems.add(GENERATION_CONFIG, name, f"is {shown(config[name])}; expected {complaint}")
        else:
            found[REQUEST_NAMES.get(name, name)] = config[name]
    return found


def _complaint(name: str, value: Any) -> str:
    """What a setting should have been; empty when it is good."""
    least, most, whole = RANGES[name]
    kinds = (int,) if whole else (int, float)
    above = name in ABOVE_ZERO
    if type(value) in kinds and least <= value <= most and not (above and value == 0):
        return ""
    kind = "an integer" if whole else "a number"
    return f"{kind} {'above' if above else 'from'} {least} {'and at most' if above else 'to'} {most}"
