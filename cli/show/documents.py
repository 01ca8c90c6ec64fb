"""Results for programs: one document in JSON or YAML, with the field names of the protos."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from cli.language.options import snake_case
from cli.show.terminal import speaks_unicode

if TYPE_CHECKING:
    import yaml

# Their keys are the user's words, not field names.
MAPS = frozenset(
    {"annotations", "loadTargets", "defaultSamplingParams", "filenameToSize", "scalingSchedules"}
)
# What a terminal would obey, and what no encoding takes. JSON itself escapes only what comes before these.
_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A text that a reader of YAML, of whichever version, could take for a number, or for yes or no.
_NO_TEXT = re.compile(r"[-+]?(0[xob]?)?[0-9._]+([eE][-+]?[0-9]+)?|0x[0-9a-fA-F]+|[yYnN]")


def proto_names(value: Any) -> Any:
    """The JSON form of the API with the field names of the protos: `createTime` becomes `create_time`."""
    if isinstance(value, list):
        return [proto_names(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        snake_case(key): _map_values(inner) if key in MAPS else proto_names(inner)
        for key, inner in value.items()
    }


def _map_values(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: proto_names(inner) for key, inner in value.items()}
    return value


def write_json(value: Any, stream: TextIO) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=not speaks_unicode(stream))
    stream.write(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def write_yaml(value: Any, stream: TextIO) -> None:
    import yaml

    dumper = _dumper(yaml)
    yaml.dump(
        value,
        stream,
        Dumper=dumper,
        sort_keys=False,
        allow_unicode=speaks_unicode(stream),
        width=10_000,
    )


def _dumper(yaml: Any) -> "type[yaml.SafeDumper]":
    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent(dumper: Any, text: str) -> Any:
        safe = _UNSAFE.search(text) is None
        style = '"' if not safe else "'" if _NO_TEXT.fullmatch(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return Dumper
