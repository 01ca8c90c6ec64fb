"""Models: upload, download, and what is said about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import transfer
from cli.commands import standard
from cli.errors import CliError, Interrupted
from cli.local_files import LocalFile, ModelFolder, read_model_folder
from cli.options import Fields, Flag, Kind
from cli.output import byte_size
from cli.progress import transfer_bar
from cli.registry import command
from cli.resources import short_id
from cli.session import Session
from cli.waiting import Verdict, state_line, state_of, status_of, wait_for

FLAGS = (
    Flag("context-length", "contextLength", "The longest context, in tokens.", Kind.INTEGER),
    Flag("default-draft-model", "defaultDraftModel", "The draft model for speculative decoding."),
    Flag("default-draft-token-count", "defaultDraftTokenCount", "How many tokens it drafts.", Kind.INTEGER),
    Flag("description", "description", "What the model is; fewer than 1000 characters."),
    Flag("display-name", "displayName", "A name for people; fewer than 64 characters."),
    Flag("github-url", "githubUrl", "The model's GitHub page."),
    Flag("hugging-face-url", "huggingFaceUrl", "The model's Hugging Face page."),
    Flag("public", "public", "Let other accounts see and query the model.", Kind.SWITCH),
    Flag("supports-image-input", "supportsImageInput", "The model takes images.", Kind.SWITCH),
    Flag("supports-tools", "supportsTools", "The model calls functions.", Kind.SWITCH),
)
_ID = typer.Argument(metavar="ID", help="The model's id or name.")
_QUIET = typer.Option("--quiet/--no-quiet", help="No progress bar.", show_default=False)
_POLL = typer.Option("--poll-duration", help="How long to wait until the server has checked the files.")


@command("create", "model", flags=FLAGS)
def create_model(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The new model's id.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder with the model's files.")],
    fields: Fields,
    base_model: Annotated[
        str | None, typer.Option(help="The base model, when the folder holds a LoRA adapter.")
    ] = None,
    embedding: Annotated[bool, typer.Option("--embedding/--no-embedding", help="It embeds text.")] = False,
    quiet: Annotated[bool, _QUIET] = False,
    poll_duration: Annotated[str, _POLL] = "2h",
) -> None:
    """Upload a base model or a LoRA adapter from a folder.

    When the upload or the server's check fails, the new model is deleted again.
    """
    folder = read_model_folder(path)
    body = {**fields.body, **_kind_fields(folder, base_model, embedding)}
    for line in folder.skipped:
        session.output.note(f"Left out {line}")
    name = session.name("model", id)
    standard.create(
        session,
        "model",
        name,
        body={"modelId": short_id(name), "model": body},
        then={"upload": {file.name: file.size for file in folder.files}},
    )
    with standard.taken_back_on_failure(session, "model", name):
        model = _upload(session, name, folder.files, quiet, poll_duration)
    session.output.resource(model)


@command("upload", "model")
def upload_model(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder with the model's files.")],
    quiet: Annotated[bool, _QUIET] = False,
    poll_duration: Annotated[str, _POLL] = "2h",
) -> None:
    """Upload the files of a model that exists and is still waiting for them."""
    folder = read_model_folder(path)
    for line in folder.skipped:
        session.output.note(f"Left out {line}")
    name = session.name("model", id)
    session.output.resource(_upload(session, name, folder.files, quiet, poll_duration))


@command("validate", "model")
def validate_model(session: Session, id: Annotated[str, _ID]) -> None:
    """Ask the server to check the uploaded files of a model again."""
    name = session.name("model", id)
    _warn(session, session.client.get(f"{name}:validateUpload"))
    session.output.resource(session.client.get(name))


@command("update", "model", flags=FLAGS)
def update_model(session: Session, id: Annotated[str, _ID], fields: Fields) -> None:
    """Change what is said about a model."""
    standard.update(session, "model", id, fields)


@command("download", "model")
def download_model(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder to put the files in.")],
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Download a model's files into a folder."""
    download(session, session.name("model", id), path, quiet)


def download(session: Session, name: str, folder: Path, quiet: bool) -> None:
    """Downloads all files of a model or a dataset."""

    def urls() -> Mapping[str, str]:
        found = session.client.get(f"{name}:getDownloadEndpoint").get("filenameToSignedUrls")
        if not found:
            raise CliError(f"{name} has no files to download")
        return {str(key): str(value) for key, value in found.items()}

    with transfer_bar(session.output, "Downloading", None, quiet=quiet) as count:
        written = transfer.download(urls, folder, count)
    if not quiet:
        size = sum(target.stat().st_size for target in written)
        session.output.note(
            f"{byte_size(size)} in {len(written)} {'file' if len(written) == 1 else 'files'}: {folder}"
        )
    if session.output.as_json:
        session.output.json([str(target) for target in written])


def _kind_fields(folder: ModelFolder, base_model: str | None, embedding: bool) -> dict[str, Any]:
    """What the folder's own files say about the kind of the model."""
    adapter = folder.adapter
    if base_model is None:
        if adapter is not None:
            of = adapter.get("base_model_name_or_path")
            raise CliError(
                "the folder holds a LoRA adapter" + (f" of {of}" if of else ""),
                advice=["name its base model on this server: --base-model accounts/ACCOUNT/models/MODEL"],
            )
        return {"kind": "EMBEDDING_MODEL" if embedding else "HF_BASE_MODEL"}
    if adapter is None:
        raise CliError(
            "--base-model is for LoRA adapters, and the folder holds no adapter_config.json",
            advice=["leave --base-model out to upload a base model"],
        )
    targets, rank = adapter.get("target_modules"), adapter.get("r")
    if not isinstance(rank, int) or not targets:
        raise CliError("adapter_config.json lacks r or target_modules; is it a LoRA adapter?")
    modules = [targets] if isinstance(targets, str) else list(targets)
    details = {"baseModel": base_model, "r": rank, "targetModules": modules}
    return {"kind": "HF_PEFT_ADDON", "peftDetails": details}


def _upload(
    session: Session, name: str, files: list[LocalFile], quiet: bool, poll_duration: str
) -> dict[str, Any]:
    """Uploads, has the server check the files, and waits for the verdict."""

    def urls() -> Mapping[str, str]:
        body = {"filenameToSize": {file.name: str(file.size) for file in files}}
        answer = session.client.call("POST", f"{name}:getUploadEndpoint", body=body)
        return {str(key): str(value) for key, value in answer.get("filenameToSignedUrls", {}).items()}

    total = sum(file.size for file in files)
    with transfer_bar(session.output, f"Uploading {len(files)} files", total, quiet=quiet) as count:
        transfer.upload(files, urls, count)
    lives_on = [f"firectl get model {name}", f"firectl delete model {name}"]
    try:
        _warn(session, session.client.get(f"{name}:validateUpload"))
    except KeyboardInterrupt:
        raise Interrupted(f"stopped waiting; the server is checking {name}", advice=lives_on) from None
    return wait_for(session, name, judge_upload, timeout=poll_duration, lives_on=lives_on)


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


def _warn(session: Session, answer: Mapping[str, Any]) -> None:
    for warning in answer.get("warnings") or []:
        session.output.note(f"Warning: {warning}")
