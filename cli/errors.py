"""What can go wrong, and how it is told: the cause first, then the next command to type."""

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

GRPC_CODES = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}

CAN_GO_ON = "FAILED_PRECONDITION"
"""The code of an upload that is not whole, or that somebody else has in hand: it is kept, to go on with."""


class CliError(Exception):
    """A failure the user can understand.

    `details` are lines printed under the cause; `advice` are the next steps, each one line.
    """

    exit_code = 1

    def __init__(self, message: str, *, details: Sequence[str] = (), advice: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = list(details)
        self.advice = list(advice)


class Unreachable(CliError):
    """No answer came from the server."""

    def __init__(self, base_url: str, reason: str) -> None:
        super().__init__(
            f"cannot reach {base_url}: {reason}",
            advice=[
                "start a server here: hearth up --data-dir DIR",
                "or name another one: export FIREWORKS_BASE_URL=http://HOST:PORT",
            ],
        )


class DryRun(Exception):
    """Raised in the place of the first request that would change something."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self.request = request


class UsageError(CliError):
    """The command line itself is wrong."""

    exit_code = 2


class Stopped(CliError):
    """A transfer that ended before it was whole, and can go on from there."""


class Interrupted(CliError):
    """Ctrl-C."""

    exit_code = 130


class ApiError(CliError):
    """The server answered with an error. `path` is the path that was asked for."""

    def __init__(self, status: int, code: str, message: str, details: list[Any], path: str) -> None:
        self.status = status
        self.code = code
        self.path = path
        self.report = next((d for d in details if _type_of(d).endswith("DatasetReport")), None)
        lines = [line for detail in details for line in _violations(detail)]
        super().__init__(_without_repeats(message, lines) or f"the server answered {status} {code}".rstrip())
        self.details = lines


def api_error(status: int, body: Any, path: str) -> ApiError:
    """The error that a response carries: google.rpc.Status, {"error": {"message"}}, or {"error": "…"}."""
    if not isinstance(body, Mapping):
        return ApiError(status, "", "", [], path)
    inner = body.get("error")
    source = inner if isinstance(inner, Mapping) else body
    code = source.get("code")
    name = GRPC_CODES.get(code, "") if isinstance(code, int) else str(code or "")
    message = source.get("message") or (inner if isinstance(inner, str) else "")
    details = source.get("details")
    return ApiError(status, name, str(message), details if isinstance(details, list) else [], path)


def render_error(error: CliError, stream: TextIO) -> None:
    """Writes the error; the only place that does."""
    stream.write(f"Error: {printable(error.message)}\n")
    for line in error.details:
        stream.write(f"  {printable(line)}\n")
    for line in error.advice:
        stream.write(f"Next: {printable(line)}\n")
    stream.flush()


def printable(text: str) -> str:
    """The text with control characters spelled out: what a server or a file holds never moves the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _violations(detail: Any) -> list[str]:
    if not isinstance(detail, Mapping):
        return []
    found = detail.get("fieldViolations")
    if not isinstance(found, list):
        return []
    return [f"{v.get('field', '')}: {v.get('description', '')}" for v in found if isinstance(v, Mapping)]


def _type_of(detail: Any) -> str:
    return str(detail.get("@type", "")) if isinstance(detail, Mapping) else ""


def _without_repeats(message: str, lines: list[str]) -> str:
    """Drops violations that the message already spells out, so that nothing is said twice."""
    lines[:] = [line for line in lines if line != message and line.partition(": ")[2] not in (message, "")]
    return message
