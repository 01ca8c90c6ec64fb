"""What a job's trainer has logged: where it is read, and the forms in which it is given out."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.connection.client import trust_for
from cli.connection.session import Session
from cli.errors import CliError, UsageError
from cli.training.jobs import NEWER

if TYPE_CHECKING:
    import httpx

FORMATS = ("jsonl", "csv")
PICTURES = ("svg", "png")
Record = dict[str, Any]


def job_metrics(session: Session, noun: str, name: str) -> list[Record]:
    """The records of a job, oldest first; none before its first step."""
    if noun in NEWER:
        url = _address(session, noun, name)
        return _read_lines(url) if url else []
    logged = session.client.get(f"{name}:metrics").get("metrics") or []
    return [entry for entry in logged if isinstance(entry, dict)]


def _address(session: Session, noun: str, name: str) -> str:
    """Where the file of the metrics is; empty before there is one."""
    if noun == "dpo-job":
        return str(session.client.get(f"{name}:getMetricsFileEndpoint").get("signedUrl") or "")
    return str(session.client.get(name).get("metricsFileSignedUrl") or "")


def export(
    session: Session, noun: str, given: str, file: Path | None, form: str | None, plot: Path | None = None
) -> None:
    """Writes a job's metrics to a file, or as the result; and their picture, or only that."""
    form = _chosen(file, form)
    name = session.name(noun, given)
    if plot is not None:
        _export_plot(session, name, plot)
        if file is None:
            return
    records = job_metrics(session, noun, name)
    if not records:
        session.output.note(f"{name} has logged nothing yet")
    if file is not None:
        file.write_text(_rendered(records, form), encoding="utf-8")
        session.output.note(f"{len(records)} {'record' if len(records) == 1 else 'records'} in {file}")
    elif session.output.as_json:
        session.output.json(records)
    else:
        session.output.stdout.write(_rendered(records, form))


def _export_plot(session: Session, name: str, file: Path) -> None:
    kind = file.suffix.lower().lstrip(".")
    if kind not in PICTURES:
        raise UsageError(f"a plot is a file in .{' or .'.join(PICTURES)}", advice=[f"--plot {file}.svg"])
    url = str(session.client.get(f"{name}:getPlotEndpoint").get(f"{kind}SignedUrl") or "")
    if not url:
        session.output.note(f"{name} has no plot yet; one is drawn every minute while it trains")
        return
    file.write_bytes(_fetched(url, "plot").content)
    session.output.note(f"The plot is in {file}")


def _chosen(file: Path | None, form: str | None) -> str:
    """The form that is named, or that the file's name ends with."""
    chosen = form or ("csv" if file is not None and file.suffix.lower() == ".csv" else "jsonl")
    if chosen not in FORMATS:
        raise UsageError(f'there is no format "{chosen}"', advice=[f"--format {' or '.join(FORMATS)}"])
    return chosen


def _rendered(records: Sequence[Record], form: str) -> str:
    if form == "jsonl":
        return "".join(f"{json.dumps(record)}\n" for record in records)
    # Evaluations log other columns than steps do: each has its place, in the order in which they came up.
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _read_lines(url: str) -> list[Record]:
    return _records(_fetched(url, "metrics").text)


def _fetched(url: str, what: str) -> "httpx.Response":
    """What is behind a signed URL, which the API key has no business with."""
    import httpx

    try:
        answer = httpx.get(url, timeout=60.0, verify=trust_for([url]), follow_redirects=False)
    except httpx.HTTPError as error:
        raise CliError(f"the {what} could not be read: {error or type(error).__name__}") from None
    if answer.status_code >= 300:
        raise CliError(f"the {what} could not be read: the storage answered {answer.status_code}")
    return answer


def _records(text: str) -> list[Record]:
    """A JSON object a line; a last line that is still being written is left out."""
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
