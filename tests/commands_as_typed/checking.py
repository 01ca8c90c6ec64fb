"""Runs one line of the table and compares what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.cli.conftest import Ran
from tests.commands_as_typed.table import Entry, argv, filled, holds
from tests.commands_as_typed.world import World


def run_and_check(entry: Entry, world: World, firectl: Callable[..., Ran]) -> None:
    for what in filled(entry.given, world.names):
        world.give(what)
    values = world.values()
    entry = replace(entry, **{name: filled(value, values) for name, value in vars(entry).items()})
    line = entry.line.replace("/path/to/", f"{world.home}/path/to/")
    ran = firectl(*argv(line), stdin=entry.stdin)
    told = f"firectl {line}\n{ran.out}\n{ran.err}"
    assert ran.code == entry.code, told
    check_output(entry, ran, told)
    for path, text in entry.files.items():
        content = (world.home / path).read_bytes()
        assert content and (text or "").encode() in content, path
    for check in entry.then:
        check_effect(check, world, told)


def check_output(entry: Entry, ran: Ran, told: str) -> None:
    for text in entry.stdout:
        assert text in ran.out, f"{text!r} is not on stdout of {told}"
    for text in entry.stderr:
        assert text in ran.err, f"{text!r} is not on stderr of {told}"
    assert bool(ran.out) != entry.silent or not (entry.silent or entry.stdout), told
    assert "Traceback" not in ran.err and "firectl failed" not in ran.err, told
    assert ("Error:" in ran.err) == (ran.code != 0), told


def check_effect(check: Mapping[str, Any], world: World, told: str) -> None:
    """`get` one resource, or look in a `list`: there has to be one `only`, at least one, or `none`."""
    match check:
        case {"get": path, "status": status}:
            assert world.status(path) == status, told
        case {"get": path, "state": states}:
            assert world.call("GET", path)["state"] in states, told
        case {"get": path, "has": fields}:
            found = world.call("GET", path)
            assert holds(found, fields), f"{found} is not {fields} after {told}"
        case {"only": collection, "has": fields}:
            (found,) = world.list(collection)
            assert holds(found, fields), f"{found} is not {fields} after {told}"
            assert check.get("lacks", "\0") not in str(found)
        case {"list": collection, "has": fields}:
            assert any(holds(found, fields) for found in world.list(collection)), told
        case {"none": collection, "has": fields}:
            assert not any(holds(found, fields) for found in world.list(collection)), told
        case {"none": collection}:
            assert world.list(collection) == [], told
        case _:
            raise AssertionError(f"nobody knows how to check {check}")
