"""YAML files that people write by hand; JSON is YAML too."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.errors import CliError
from cli.language.options import camel_case

# YAML 1.1 takes `1e-4` for a word, as which no server takes a learning rate.
_FLOAT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$")
_MAPS = frozenset({"annotations", "loadTargets", "scalingSchedules"})
_DATE = "tag:yaml.org,2002:timestamp"


def read_mapping(path: Path, holds: str, example: str) -> dict[str, Any]:
    """The `key: value` lines of a file; an error names the line. `holds` says what it should hold."""
    found = _parsed(path)
    _check_for_json(found, path)
    if not isinstance(found, dict):
        raise CliError(f"{path} holds no {holds}: it should be `key: value` lines, such as `{example}`")
    return found


def camel_keys(value: Any) -> Any:
    """Field names in camelCase, all the way down; the keys of maps are the user's own words."""
    if isinstance(value, Mapping):
        camel = {camel_case(str(key)): inner for key, inner in value.items()}
        return {key: inner if key in _MAPS else camel_keys(inner) for key, inner in camel.items()}
    if isinstance(value, list):
        return [camel_keys(item) for item in value]
    return value


def _parsed(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Dates stay the words that they are; numbers may be written like 1e-4."""

        yaml_implicit_resolvers = {
            letter: [(tag, pattern) for tag, pattern in found if tag != _DATE]
            for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    for letter in "-+.0123456789":
        Loader.yaml_implicit_resolvers.setdefault(letter, []).append(("tag:yaml.org,2002:float", _FLOAT))
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except UnicodeDecodeError:
        raise CliError(f"{path} is not a text file") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise CliError(f"{where}: {_in_words(error)}", details=_line(mark)) from None
    except yaml.YAMLError as error:
        raise CliError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _check_for_json(found: Any, path: Path) -> None:
    """YAML knows more than JSON does: numbers that are none, bytes, lists that hold themselves."""
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CliError(f"{path} holds what no request can: {error}") from None


def _in_words(error: Any) -> str:
    """The parser's complaint; the commonest ones without its own terms."""
    problem = str(error.problem or error.context)
    if "<block end>" in problem:
        return "the indentation does not fit the lines above"
    if "mapping values are not allowed" in problem:
        return "a colon where none can be; is the indentation right, and text with a colon in quotes?"
    return f"{problem}, so this is not YAML"


def _line(mark: Any) -> list[str]:
    """The line in question, with a pointer to the place."""
    if mark is None or mark.buffer is None:
        return []
    line = mark.buffer.rstrip("\0").splitlines()[mark.line : mark.line + 1]
    return [*line, " " * mark.column + "^"] if line else []
