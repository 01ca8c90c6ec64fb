"""Renders a stranger's chat template. Run as a script, alone in a process that may be killed at any time.

Reads one JSON object {template, cases: [{name: value}], limits} on stdin and writes one on stdout: either
{"results": [{"text"} or {"error", "line"}]}, or {"error", "line"} when the template cannot be parsed or went
beyond a limit. It sees the same surroundings as in the engine: a sandbox, loop controls, `{% generation %}`,
`tojson`, `raise_exception` and `strftime_now`. Nothing of Hearth is imported here.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from types import FrameType, TracebackType
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE_FILE = "<template>"
MOST_LOOKS = 100
"""How often the engine may look through a template before it renders it the first time."""


class TooSlow(BaseException):
    """Not an `Exception`: a template must have no way to catch it."""


class TooLong(Exception):
    """The text outgrew its limit."""


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the assistant said; here it is only rendered."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class StrictSandbox(ImmutableSandboxedEnvironment):
    """Reaching for what is unsafe is an error at once, not an empty string."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__} is not allowed")


class OverLimit(Exception):
    """No other case is worth rendering."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.line = line


def main() -> None:
    request = json.load(sys.stdin.buffer)
    _bound_process(request["limits"])
    try:
        answer = {"results": _render_all(request["template"], request["cases"], request["limits"])}
    except (TemplateSyntaxError, RecursionError, MemoryError, TooSlow) as error:
        answer = {"error": _reason(error), "line": getattr(error, "lineno", None)}
    except OverLimit as error:
        answer = {"error": str(error), "line": error.line}
    sys.stdout.write(json.dumps(answer))


def _render_all(source: str, cases: list[dict[str, Any]], limits: dict[str, Any]) -> Any:
    signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
    environment = _environment()
    template = environment.from_string(source)
    _count_looks(environment.parse(source))
    return [_render(template, case, limits) for case in cases]


def _count_looks(tree: nodes.Template) -> None:
    """Refuse what keeps the engine busy while it finds out in which form a template takes contents.

    It looks through the template once for each macro, and once for each name that a `set` gives to the
    messages, from name to name and never asking where it has been: names in a circle would keep it for ever.
    """
    given: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for assign in tree.find_all(nodes.Assign):
        name, target = _bare_name(assign.node), assign.target
        if name and isinstance(target, nodes.Name) and target.name != name:
            given[name].append((target.name, assign.lineno))
    looks, names = sum(1 for _ in tree.find_all(nodes.Macro)), deque(["messages"])
    while names:
        for name, line in given[names.popleft()]:
            looks += 1
            if looks > MOST_LOOKS:
                raise OverLimit("too many names for the messages, or too many macros", line)
            names.append(name)
    if looks > MOST_LOOKS:
        raise OverLimit("too many macros", None)


def _bare_name(node: nodes.Node | None) -> str:
    """The variable that is read, be it filtered or cut; empty for anything else."""
    while isinstance(node, nodes.Filter | nodes.Test) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else ""


def _bound_process(limits: dict[str, Any]) -> None:
    """Limits on what the system grants, and a timer that interrupts what still runs Python.

    Both count time on the processor: a busy machine makes no template hang.
    """
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGPROF, _too_slow)


def _too_slow(signum: int, frame: FrameType | None) -> NoReturn:
    raise TooSlow


def _environment() -> StrictSandbox:
    environment = StrictSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _render(template: Any, case: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate(**case):
            size += len(piece)
            if size > limits["output_characters"]:
                raise TooLong
            pieces.append(piece)
    # The template may raise anything at all, and all of it is an answer.
    except (Exception, TooSlow) as error:  # noqa: BLE001
        line = _template_line(error.__traceback__)
        if isinstance(error, TooSlow) and line is not None:
            # Jinja maps the lines of what it catches, and this it does not catch.
            line = template.get_corresponding_lineno(line)
        if isinstance(error, MemoryError | TooSlow | TooLong | RecursionError | SecurityError):
            raise OverLimit(_reason(error), line) from None
        return {"error": _reason(error), "line": line}
    return {"text": "".join(pieces)}


def _reason(error: BaseException) -> str:
    words: dict[type[BaseException], Callable[[], str]] = {
        TooSlow: lambda: "rendering takes too long",
        TooLong: lambda: "the rendered text is too long",
        MemoryError: lambda: "rendering takes too much memory",
        RecursionError: lambda: "the template recurses too deeply",
        SecurityError: lambda: f"unsafe: {error}",
        TemplateError: lambda: str(error),
    }
    for kind, word in words.items():
        if isinstance(error, kind):
            return word()[:500]
    return f"{type(error).__name__}: {error}"[:500]


def _template_line(trace: TracebackType | None) -> int | None:
    """The innermost line of the template in a traceback."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TEMPLATE_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


if __name__ == "__main__":
    main()
