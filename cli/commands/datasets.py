"""Datasets: one JSONL file each."""

from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import ApiError, CliError, UsageError
from cli.language.flags import Wait, WaitTimeout, group, refuse, refused
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.resources import short_id
from cli.show.progress import transfer_bar
from cli.show.waiting import WaitFailed, wait_for
from cli.transfer.local_files import LocalFile, id_from_path, read_dataset
from cli.transfer.model_source import refuse_elsewhere
from cli.transfer.uploading import ask_for_check, download, judge_upload, send_files

# Larger files are sent in parts, so that a lost connection costs little. The API would take up to 150 MB.
DIRECT_UPLOAD_BYTES = 8 * 1024 * 1024
_SHOWN_ROWS = 20
_ID = typer.Argument(metavar="ID", help="The dataset's id or name.")
_QUIET = typer.Option("--quiet/--no-quiet", help="No progress bar.", show_default=False)
_FLAGS = (Flag("display-name", "displayName", "A name for people."),)
_FORMATS = ("CHAT", "COMPLETION", "PREFERENCE", "RL")
_TRACED = "what models are asked is not recorded, so that no dataset can be made of it"
_ELSEWHERE = (
    Flag("source", "?sourceDatasetId", "A dataset to copy, in place of a file."),
    Flag("filter", "?filter", "Which rows of it to take."),
    Flag("external-url", "externalUrl", "A file elsewhere, in place of one here."),
)
_CREATE_FLAGS = (
    *_FLAGS,
    Flag("format", "format", "What its rows are; found out by default.", choices=_FORMATS),
    Flag("eval-protocol-output", "evalProtocolOutput", "The rows are results of an evaluation.", Kind.SWITCH),
    *group("Other sources", *_ELSEWHERE),
    refused("start-time", _TRACED),
    refused("end-time", _TRACED),
    refused("trace-from-model-id", _TRACED),
    refused("date", _TRACED),
)


@command(
    "create",
    "dataset",
    flags=_CREATE_FLAGS,
    example="firectl create dataset my-dataset my-dataset.jsonl",
    see_also=("get dataset", "create fine-tuning-job", "split dataset"),
)
def create_dataset(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="[ID]", help="The new id; by default the file's name.")],
    fields: Fields,
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="A JSONL file.", show_default=False)
    ] = None,
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Upload a JSONL file as a dataset, or copy another dataset.

    When the server finds bad rows it names them, and the new dataset is deleted again.
    """
    refuse(fields, _CREATE_FLAGS)
    if fields.body.pop("evalProtocolOutput", False):
        fields.body["evalProtocol"] = {}
    if "filter" in fields.query and "sourceDatasetId" not in fields.query:
        raise UsageError("--filter chooses rows of another dataset: add --source ID")
    if fields.query or "externalUrl" in fields.body:
        _create_without_file(session, id, path, fields)
        return
    refuse_elsewhere(path or id, f"firectl create dataset {id if path else 'ID'} FILE")
    found = Path(path or id)
    file, count = read_dataset(found)
    name = session.name("dataset", id if path else id_from_path(found))
    dataset = {"exampleCount": str(count), "userUploaded": {}, **fields.body}
    if "evalProtocol" in dataset:
        del dataset["userUploaded"]  # a dataset has one origin
    standard.create(
        session,
        "dataset",
        name,
        body={"datasetId": short_id(name), "dataset": dataset},
        then={"upload": {file.name: file.size}},
    )
    with standard.taken_back_on_failure(session, "dataset", name):
        try:
            created = _upload(session, name, found, file, quiet)
        except CliError as error:
            raise _with_rows(session, name, error) from None
    session.output.resource(created)


def _create_without_file(session: Session, id: str, path: str | None, fields: Fields) -> None:
    """A dataset that the server is to make of what it has; what it does not fetch it refuses."""
    if path is not None:
        raise UsageError(f"{path} is one file too many: the rows come from elsewhere")
    name = session.name("dataset", id)
    body = {"datasetId": short_id(name), "dataset": fields.body, **fields.query}
    standard.create(session, "dataset", name, body=body, then={})
    with standard.taken_back_on_failure(session, "dataset", name):
        created = wait_checked(session, name)
    session.output.resource(created)


@command(
    "upload",
    "dataset",
    example="firectl upload dataset my-dataset my-dataset.jsonl",
    see_also=("create dataset", "validate dataset"),
)
def upload_dataset(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A JSONL file.")],
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Upload the file of a dataset that exists and is still waiting for it."""
    file, _count = read_dataset(path)
    name = session.name("dataset", id)
    try:
        uploaded = _upload(session, name, path, file, quiet)
    except CliError as error:
        raise _with_rows(session, name, error) from None
    session.output.resource(uploaded)


@command(
    "split",
    "dataset",
    example="firectl split dataset my-dataset --chunk-size 1000",
    see_also=("list datasets", "create dataset"),
)
def split_dataset(
    session: Session,
    id: Annotated[str, _ID],
    chunk_size: Annotated[int, typer.Option(help="Rows of each part, at least 200.", min=1)],
    wait: Wait = False,
    wait_timeout: WaitTimeout = "2h",
) -> None:
    """Make datasets of so many rows each. Prints their names."""
    name = session.name("dataset", id)
    made = session.client.call("POST", f"{name}:splitDataset", body={"chunkSize": chunk_size})
    parts = [str(part) for part in made.get("chunkDatasetNames") or []]
    if session.output.as_json:
        session.output.resource(made)
    for part in parts:
        if not session.output.as_json:
            session.output.line(part)
        if wait:
            wait_checked(session, part, wait_timeout)
    total, count = made.get("totalExamples") or 0, len(parts)
    session.output.note(f"{total} rows in {count} {'dataset' if count == 1 else 'datasets'}")


@command(
    "update",
    "dataset",
    flags=_FLAGS,
    example='firectl update dataset my-dataset --display-name "My rows"',
    see_also=("get dataset",),
)
def update_dataset(session: Session, id: Annotated[str, _ID], fields: Fields) -> None:
    """Change a dataset's display name."""
    standard.update(session, "dataset", id, fields)


@command(
    "validate",
    "dataset",
    example="firectl validate dataset my-dataset",
    see_also=("upload dataset", "get dataset"),
)
def validate_dataset(session: Session, id: Annotated[str, _ID]) -> None:
    """Ask the server to check the rows of a dataset again."""
    name = session.name("dataset", id)
    try:
        session.client.call("POST", f"{name}:validateUpload", body={})
    except ApiError as error:
        raise _with_rows(session, name, error) from None
    session.output.resource(session.client.get(name))


@command(
    "download",
    "dataset",
    example="firectl download dataset my-dataset ./rows",
    see_also=("get dataset", "create dataset"),
)
def download_dataset(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder to put the file in.")],
    download_lineage: Annotated[
        bool,
        typer.Option(
            "--download-lineage/--no-download-lineage",
            help="And the datasets that it was made from, each in a folder of its own.",
            show_default=False,
        ),
    ] = False,
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Download a dataset's file into a folder."""
    name = session.name("dataset", id)
    if download_lineage:
        _download_lineage(session, name, path, quiet)
    else:
        download(session, name, path, quiet)


def _download_lineage(session: Session, name: str, folder: Path, quiet: bool) -> None:
    """The files of a dataset and of those that it was made from, as far back as they are still there."""
    found = session.client.get(f"{name}:getDownloadEndpoint", {"downloadLineage": True})
    files = [str(file) for file in found.get("filenameToSignedUrls") or {}]
    parent = name.rpartition("/")[0]
    shown = session.output
    session.output = copy(shown)
    session.output.format = "text"  # as JSON, all files are one document, and that comes last
    try:
        for id in dict.fromkeys(file.partition("/")[0] for file in files):
            download(session, f"{parent}/{id}", folder / id, quiet)
    finally:
        session.output = shown
    if shown.as_json:
        shown.json([str(folder / file) for file in files])


def _upload(session: Session, name: str, path: Path, file: LocalFile, quiet: bool) -> dict[str, Any]:
    if file.size <= DIRECT_UPLOAD_BYTES:
        with (
            transfer_bar(session.output, "Uploading", file.size, quiet=quiet or session.dry_run) as count,
            file.path.open("rb") as stream,
        ):
            session.client.upload(f"{name}:upload", "file", file.name, _Counted(stream, count))
    else:
        send_files(session, "dataset", name, path, [file], quiet=quiet)
        ask_for_check(session, "dataset", name)
    return wait_checked(session, name)


def wait_checked(session: Session, name: str, timeout: str = "2h") -> dict[str, Any]:
    """Waits until the server has checked a dataset's rows."""
    lives_on = [f"firectl get dataset {name}", f"firectl delete dataset {name}"]
    return wait_for(session, name, judge_upload, timeout=timeout, lives_on=lives_on)


def _with_rows(session: Session, name: str, error: CliError) -> CliError:
    """The error with the bad rows that the server names; a late verdict is asked for them again."""
    if isinstance(error, WaitFailed):
        try:
            session.client.call("POST", f"{name}:validateUpload", body={})
        except ApiError as asked:
            error = asked if asked.report else error
        except CliError:
            pass  # the verdict stands; only its details could not be had
    if isinstance(error, ApiError) and error.report:
        error.details += _report_lines(error.report, error.message)
    return error


def _report_lines(report: Mapping[str, Any], told: str) -> list[str]:
    """The bad rows; none when the only one is told already."""
    rows = [row for row in report.get("badRows") or [] if isinstance(row, Mapping)]
    total = int(report.get("badRowCount") or len(rows))
    if not total or (total == 1 and rows and str(rows[0].get("reason")) in told):
        return []
    lines = [f"{total} bad {'row' if total == 1 else 'rows'}:"]
    lines += [f"  line {row.get('line', '?')}: {row.get('reason', '')}" for row in rows[:_SHOWN_ROWS]]
    shown = min(len(rows), _SHOWN_ROWS)
    return [*lines, f"  and {total - shown} more"] if total > shown else lines


class _Counted:
    """A binary file that reports what is read from it, for the progress of a multipart upload."""

    def __init__(self, stream: BinaryIO, count: Callable[[int], object]) -> None:
        self._stream = stream
        self._count = count

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._count(len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def fileno(self) -> int:
        return self._stream.fileno()
