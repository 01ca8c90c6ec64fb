"""Uploading and downloading the files of models and datasets: from the first byte to the server's verdict."""

import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli import transfer
from cli.connection.session import Session
from cli.errors import CAN_GO_ON, ApiError, CliError, Interrupted, Stopped
from cli.resources import short_id
from cli.show.progress import transfer_bar
from cli.show.readable import byte_size
from cli.show.waiting import Verdict, state_line, state_of, status_of
from cli.transfer.local_files import LocalFile


def send_files(
    session: Session, noun: str, name: str, path: Path, files: Sequence[LocalFile], *, quiet: bool
) -> None:
    """Uploads the files that `path` holds to a model or a dataset that waits for them.

    When the network stays away, or at Ctrl-C, what has arrived is kept: the error says how to go on.
    """
    sizes = {file.name: str(file.size) for file in files}

    def ask(
        first_parts: Mapping[str, int], sha256: Mapping[str, str], etags: Mapping[str, Mapping[str, str]]
    ) -> Mapping[str, Any]:
        more = {
            "filenameToFirstPart": first_parts,
            "filenameToSha256": sha256,
            "filenameToPartEtags": etags,
        }
        body = {"filenameToSize": sizes, "enableResumableUpload": True}
        body |= {field: value for field, value in more.items() if value}
        return _register(session, noun, name, body)

    again = f"to go on where it stopped: firectl upload {noun} {short_id(name)} {shlex.quote(str(path))}"
    many = f"Uploading {len(files)} files" if len(files) > 1 else "Uploading"
    try:
        with transfer_bar(session.output, many, sum(file.size for file in files), quiet=quiet) as count:
            sent = transfer.upload(files, ask, count)
    except KeyboardInterrupt:
        raise Interrupted(f"upload stopped; {name} keeps what has arrived", advice=[again]) from None
    except Stopped as error:
        error.advice = error.advice or [again]
        raise
    if sent.kept and not quiet:
        session.output.note(f"{byte_size(sent.kept)} of {byte_size(sent.size)} had arrived before")


def ask_for_check(session: Session, noun: str, name: str) -> dict[str, Any]:
    """Has the server check the files, and waits while it cannot be reached; returns its answer."""
    lives_on = [f"firectl get {noun} {name}", f"firectl delete {noun} {name}"]
    patience = transfer.Patience(threading.Event())
    try:
        with _kept(noun, name):
            return transfer.patiently(lambda: _check(session, noun, name), patience)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped waiting; the server is checking {name}", advice=lives_on) from None
    except Stopped as error:
        error.advice = [f"firectl validate {noun} {short_id(name)}", *lives_on]
        raise


def judge_upload(resource: Mapping[str, Any] | None) -> Verdict:
    """Whether the files of a model or a dataset have passed the server's check."""
    if resource is None:
        return Verdict("", failure="it was deleted while the server checked its files")
    code, message = status_of(resource)
    line = state_line(resource)
    if state_of(resource) == "READY":
        return Verdict(line, done=True)
    if code != "OK":
        return Verdict(line, failure=message or f"the server refused the files: {code}")
    return Verdict(line)


def download(session: Session, name: str, folder: Path, quiet: bool) -> None:
    """Downloads all files of a model or a dataset. Typed again, it goes on where it stopped."""
    offer = transfer.Offer(lambda: session.client.get(f"{name}:getDownloadEndpoint"))
    if not offer.names():
        raise CliError(f"{name} has no files to download")
    again = "type the same command again to go on where it stopped"
    many = f"Downloading {len(offer.names())} files" if len(offer.names()) > 1 else "Downloading"
    try:
        with transfer_bar(session.output, many, offer.total, quiet=quiet) as count:
            written = transfer.download(offer, folder, count)
    except KeyboardInterrupt:
        raise Interrupted("download stopped", advice=[again]) from None
    except Stopped as error:
        error.advice = error.advice or [again]
        raise
    _tell_written(session, written, folder, quiet)


def _register(session: Session, noun: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    with _kept(noun, name):
        return session.client.call("POST", f"{name}:getUploadEndpoint", body=body)


@contextmanager
def _kept(noun: str, name: str) -> Iterator[None]:
    """That somebody else uploads there, or that parts are missing, is no reason to take anything back."""
    try:
        yield
    except ApiError as error:
        if error.code != CAN_GO_ON:
            raise
        advice = [f"firectl get {noun} {name}", *error.advice]
        raise Stopped(error.message, details=error.details, advice=advice) from None


def _tell_written(session: Session, written: Sequence[Path], folder: Path, quiet: bool) -> None:
    if not quiet:
        size = sum(target.stat().st_size for target in written)
        many = "file" if len(written) == 1 else "files"
        session.output.note(f"{byte_size(size)} in {len(written)} {many}: {folder}")
    if session.output.as_json:
        session.output.json([str(target) for target in written])


def _check(session: Session, noun: str, name: str) -> dict[str, Any]:
    if noun == "model":
        return session.client.get(f"{name}:validateUpload")
    return session.client.call("POST", f"{name}:validateUpload", body={})
