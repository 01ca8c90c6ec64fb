"""The way to a control plane, where it cannot be gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kubernetes.cluster.control_plane import BUILD


def test_without_debians_packages_the_build_says_what_it_needs(tmp_path: Path) -> None:
    command = ["/bin/bash", str(BUILD), str(tmp_path / "cluster")]
    done = subprocess.run(command, env={"PATH": "/nonexistent"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "hearth: apt-get is missing; a control plane is built from the packages of Debian 12; "
        "anywhere else set HEARTH_TEST_KUBECONFIG to a cluster\n"
    )
