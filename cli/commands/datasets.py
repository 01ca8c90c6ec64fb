"""Datasets: one JSONL file each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from cli import transfer
from cli.commands import standard
from cli.commands.models import download, judge_upload
from cli.errors import ApiError, CliError
from cli.local_files import LocalFile, id_from_path, read_dataset
from cli.options import Fields, Flag
from cli.progress import transfer_bar
from cli.registry import command
from cli.resources import short_id
from cli.session import Session
from cli.waiting import WaitFailed, wait_for

# Above this the API takes files through signed URLs only.
DIRECT_UPLOAD_BYTES = 150_000_000
_SHOWN_ROWS = 20
_ID = typer.Argument(metavar="ID", help="The dataset's id or name.")
_QUIET = typer.Option("--quiet/--no-quiet", help="No progress bar.", show_default=False)
_FLAGS = (Flag("display-name", "displayName", "A name for people."),)


@command("create", "dataset", flags=_FLAGS)
def create_dataset(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="[ID]", help="The new id; by default the file's name.")],
    fields: Fields,
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="A JSONL file.", show_default=False)
    ] = None,
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Upload a JSONL file as a dataset.

    When the server finds bad rows it names them, and the new dataset is deleted again.
    """
    path = path or Path(id)
    if path == Path(id):
        id = id_from_path(path)
    file, count = read_dataset(path)
    name = session.name("dataset", id)
    dataset = {"exampleCount": str(count), "userUploaded": {}, **fields.body}
    standard.create(
        session,
        "dataset",
        name,
        body={"datasetId": short_id(name), "dataset": dataset},
        then={"upload": {file.name: file.size}},
    )
    with standard.taken_back_on_failure(session, "dataset", name):
        try:
            created = _upload(session, name, file, quiet)
        except CliError as error:
            raise _with_rows(session, name, error) from None
    session.output.resource(created)


@command("update", "dataset", flags=_FLAGS)
def update_dataset(session: Session, id: Annotated[str, _ID], fields: Fields) -> None:
    """Change a dataset's display name."""
    standard.update(session, "dataset", id, fields)


@command("validate", "dataset")
def validate_dataset(session: Session, id: Annotated[str, _ID]) -> None:
    """Ask the server to check the rows of a dataset again."""
    name = session.name("dataset", id)
    try:
        session.client.call("POST", f"{name}:validateUpload", body={})
    except ApiError as error:
        raise _with_rows(session, name, error) from None
    session.output.resource(session.client.get(name))


@command("download", "dataset")
def download_dataset(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder to put the file in.")],
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Download a dataset's file into a folder."""
    download(session, session.name("dataset", id), path, quiet)


def _upload(session: Session, name: str, file: LocalFile, quiet: bool) -> dict[str, Any]:
    if file.size <= DIRECT_UPLOAD_BYTES:
        with (
            transfer_bar(session.output, "Uploading", file.size, quiet=quiet) as count,
            file.path.open("rb") as stream,
        ):
            session.client.upload(f"{name}:upload", "file", file.name, _Counted(stream, count))
    else:
        _upload_signed(session, name, file, quiet)
    return wait_for(
        session,
        name,
        judge_upload,
        timeout="2h",
        lives_on=[f"firectl get dataset {name}", f"firectl delete dataset {name}"],
    )


def _upload_signed(session: Session, name: str, file: LocalFile, quiet: bool) -> None:
    def urls() -> Mapping[str, str]:
        body = {"filenameToSize": {file.name: str(file.size)}}
        answer = session.client.call("POST", f"{name}:getUploadEndpoint", body=body)
        return {str(key): str(value) for key, value in answer.get("filenameToSignedUrls", {}).items()}

    with transfer_bar(session.output, "Uploading", file.size, quiet=quiet) as count:
        transfer.upload([file], urls, count)
    session.client.call("POST", f"{name}:validateUpload", body={})


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
        error.details += _report_lines(error.report)
    return error


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    rows = [row for row in report.get("badRows") or [] if isinstance(row, Mapping)]
    total = int(report.get("badRowCount") or len(rows))
    if not total:
        return []
    lines = [f"{total} bad {'row' if total == 1 else 'rows'}:"]
    lines += [f"  line {row.get('line', '?')}: {row.get('reason', '')}" for row in rows[:_SHOWN_ROWS]]
    shown = min(len(rows), _SHOWN_ROWS)
    return [*lines, f"  and {total - shown} more"] if total > shown else lines


class _Counted:
    """A binary file that reports what is read from it, for the progress of a multipart upload."""

    def __init__(self, stream: BinaryIO, count: transfer.Count) -> None:
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
