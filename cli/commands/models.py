"""Models: upload, download, and what is said about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import UsageError
from cli.language.flags import checked_duration, group, refuse, refused
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.resources import short_id
from cli.show.waiting import wait_for
from cli.transfer.local_files import LocalFile, read_model_folder
from cli.transfer.model_source import kind_fields, refuse_elsewhere
from cli.transfer.uploading import ask_for_check, download, judge_upload, send_files

FLAGS = (
    Flag("description", "description", "What the model is; fewer than 1000 characters."),
    Flag("display-name", "displayName", "A name for people; fewer than 64 characters."),
    Flag("public", "public", "Let other accounts see and query the model.", Kind.SWITCH),
    Flag("context-length", "contextLength", "The longest context, in tokens.", Kind.INTEGER),
    Flag("github-url", "githubUrl", "The model's GitHub page."),
    Flag("hugging-face-url", "huggingFaceUrl", "The model's Hugging Face page."),
    *group(
        "Abilities",
        Flag("supports-tools", "supportsTools", "The model calls functions.", Kind.SWITCH),
        Flag("supports-image-input", "supportsImageInput", "The model takes images.", Kind.SWITCH),
        Flag("default-draft-model", "defaultDraftModel", "A draft model for speculative decoding."),
        Flag("default-draft-token-count", "defaultDraftTokenCount", "Tokens that it drafts.", Kind.INTEGER),
    ),
)
_NO_BUCKETS = "models are uploaded from a folder; download it there first"
_CREATE_FLAGS = (
    *FLAGS,
    *(
        refused(name, _NO_BUCKETS)
        for name in (
            *("role-arn", "aws-access-key-id", "aws-secret-access-key", "aws-session-token"),
            *("azure-sas-token-secret", "azure-client-id", "azure-tenant-id"),
        )
    ),
)
_ID = typer.Argument(metavar="ID", help="The model's id or name.")
_QUIET = typer.Option("--quiet/--no-quiet", help="No progress bar.", show_default=False)
_POLL = typer.Option(
    "--poll-duration",
    help="How long to wait for the server's check of the files.",
    metavar="DURATION",
    callback=checked_duration,
)
_RESUMABLE = typer.Option(
    "--enable-resumable-upload/--no-enable-resumable-upload",
    help="What every upload is: once cut off, it goes on where it stopped.",
    show_default=False,
)


@command(
    "create",
    "model",
    flags=_CREATE_FLAGS,
    example="firectl create model my-model ./my-model",
    see_also=("get model", "create deployment", "upload model"),
)
def create_model(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The new model's id.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The folder with the model's files.")],
    fields: Fields,
    base_model: Annotated[
        str | None, typer.Option(help="What a LoRA adapter is for; by default what its files name.")
    ] = None,
    embedding: Annotated[bool, typer.Option("--embedding/--no-embedding", help="It embeds text.")] = False,
    enable_resumable_upload: Annotated[bool, _RESUMABLE] = True,
    quiet: Annotated[bool, _QUIET] = False,
    poll_duration: Annotated[str, _POLL] = "2h",
) -> None:
    """Upload a base model or a LoRA adapter from a folder.

    An upload that is stopped, or cut off for long, goes on with `firectl upload model`. When the server
    refuses the files, the new model is deleted again.
    """
    refuse_elsewhere(path, f"firectl create model {id} FOLDER")
    refuse(fields, _CREATE_FLAGS)
    if not enable_resumable_upload:
        raise UsageError("every upload can be resumed here: leave --enable-resumable-upload out")
    folder = read_model_folder(Path(path))
    body = {**fields.body, **kind_fields(session, Path(path), folder, base_model, embedding)}
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
        model = _upload(session, name, Path(path), folder.files, quiet, poll_duration)
    session.output.resource(model)


@command(
    "upload",
    "model",
    example="firectl upload model my-model ./my-model",
    see_also=("create model", "validate model"),
)
def upload_model(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder with the model's files.")],
    quiet: Annotated[bool, _QUIET] = False,
    poll_duration: Annotated[str, _POLL] = "2h",
) -> None:
    """Upload the files of a model that exists and is still waiting for them, or what is missing of them."""
    folder = read_model_folder(path)
    for line in folder.skipped:
        session.output.note(f"Left out {line}")
    name = session.name("model", id)
    session.output.resource(_upload(session, name, path, folder.files, quiet, poll_duration))


@command(
    "validate",
    "model",
    example="firectl validate model my-model",
    see_also=("upload model", "get model"),
)
def validate_model(session: Session, id: Annotated[str, _ID]) -> None:
    """Ask the server to check the uploaded files of a model again."""
    name = session.name("model", id)
    _warn(session, session.client.get(f"{name}:validateUpload"))
    session.output.resource(session.client.get(name))


@command(
    "update",
    "model",
    flags=FLAGS,
    example="firectl update model my-model --public",
    see_also=("get model",),
)
def update_model(session: Session, id: Annotated[str, _ID], fields: Fields) -> None:
    """Change what is said about a model."""
    standard.update(session, "model", id, fields)


@command(
    "download",
    "model",
    example="firectl download model my-model ./my-model",
    see_also=("get model", "create model"),
)
def download_model(
    session: Session,
    id: Annotated[str, _ID],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder to put the files in.")],
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Download a model's files into a folder."""
    download(session, session.name("model", id), path, quiet)


def _upload(
    session: Session, name: str, path: Path, files: list[LocalFile], quiet: bool, poll_duration: str
) -> dict[str, Any]:
    """Uploads, has the server check the files, and waits for the verdict."""
    send_files(session, "model", name, path, files, quiet=quiet)
    _warn(session, ask_for_check(session, "model", name))
    lives_on = [f"firectl get model {name}", f"firectl delete model {name}"]
    return wait_for(session, name, judge_upload, timeout=poll_duration, lives_on=lives_on)


def _warn(session: Session, answer: Mapping[str, Any]) -> None:
    for warning in answer.get("warnings") or []:
        session.output.warn(f"Warning: {warning}")
