"""firectl starts at once: a command imports its own module, and nothing heavy before it is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from cli.commands import INDEX
from cli.language.registry import all_commands, index

HEAVY = {"httpx", "rich", "yaml", "pydantic", "ssl", "asyncio", "email.message", "importlib.metadata"}


def modules_after(*argv, env=None):
    """The modules that a run of firectl leaves imported."""
    program = (
        "import json, sys\n"
        "from cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n"
        "    print(json.dumps([ended.code or 0, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *argv],
        env={**os.environ, **(env or {})},
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    return set(modules)


def commands_in(modules):
    return {name for name in modules if name.startswith("cli.commands.")}


@pytest.mark.parametrize(
    "argv", [["--help"], ["version"], ["create", "model", "--help"], ["help", "filters"]]
)
def test_what_needs_no_server_imports_nothing_heavy(argv, tmp_path):
    env = {"HOME": str(tmp_path), "FIREWORKS_BASE_URL": ""}
    assert modules_after(*argv, env=env) & HEAVY == set()


def test_the_help_of_firectl_imports_no_command():
    assert commands_in(modules_after("--help")) == set()


def test_a_command_imports_its_own_module_only(tmp_path):
    modules = modules_after("version", env={"HOME": str(tmp_path), "FIREWORKS_BASE_URL": ""})
    assert commands_in(modules) == {"cli.commands.setup"}


def test_a_list_takes_an_http_client_and_nothing_else_that_is_heavy(api, tmp_path):
    api.on("GET", "/v1/accounts/acme/models", {"models": []})
    env = {
        "HOME": str(tmp_path),
        "FIREWORKS_BASE_URL": api.url,
        "FIREWORKS_API_KEY": "fw_test",
        "FIREWORKS_ACCOUNT_ID": "acme",
    }
    modules = modules_after("list", "models", env=env)
    assert "httpx" in modules
    assert modules & {"yaml", "pydantic"} == set()


def test_the_index_names_every_command_that_is_registered():
    registered = {(command.verb, command.noun, command.alone) for command in all_commands()}
    assert {(place.verb, place.noun, place.alone) for place in index().values()} == registered


def test_the_index_names_no_command_twice():
    lines = [line for lines in INDEX.values() for line in lines]
    assert len(lines) == len(set(lines)) == len(index())


def test_each_module_registers_what_the_index_says_without_the_others():
    """Each in a process of its own, forked from one that has imported none."""
    program = """
import json, os, sys
from importlib import import_module
from cli.language import registry
for module, lines in registry.INDEX.items():
    sys.stdout.flush()
    if os.fork() == 0:
        import_module(f"cli.commands.{module}")
        expected = [place for place in registry.index().values() if place.module == module]
        missing = [p for p in expected if (p.verb, p.noun) not in registry._REGISTERED]
        print(json.dumps([module, [[p.verb, p.noun] for p in missing]]))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    missing = dict(map(json.loads, ran.stdout.splitlines()))
    assert missing == {module: [] for module in INDEX}
