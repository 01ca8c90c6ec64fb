"""The acceptance run on engines of this machine, beside somebody who only looks at the node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.acceptance import Acceptance
from tests.e2e.conftest import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(600)]


class Node:
    """The folders of replicas that came after it was made, and whether their engines answer."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "run" / "replicas"
        self._others = self._known()

    def replicas(self) -> set[str]:
        return {name for name in self._known() - self._others if self._answers(name)}

    def wanted(self) -> int:
        return len(self.remains())

    def is_at_zero(self) -> bool:
        return not self.remains()

    def context_lengths(self) -> set[int | None]:
        return {self._spec(name)["max_model_len"] for name in self.replicas()}

    def remains(self) -> list[str]:
        return sorted(self._known() - self._others)

    def check_as_created(self) -> None:
        (name,) = self.remains()
        assert (self._folder / name / "log.txt").stat().st_size > 0

    def _known(self) -> set[str]:
        return {folder.name for folder in self._folder.glob("*")}

    def _spec(self, name: str) -> Any:
        return json.loads((self._folder / name / "SPEC.json").read_text())["replica"]

    def _answers(self, name: str) -> bool:
        try:
            replica = self._spec(name)
            url = f"http://{replica['host']}:{replica['port']}/health"
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except (OSError, httpx.HTTPError):
            return False


def test_a_deployment_lives_as_its_operator_wants_from_its_creation_to_its_end(
    platform: Platform, tmp_path: Path
) -> None:
    Acceptance(platform, Node(platform.data_dir), tmp_path).run()
