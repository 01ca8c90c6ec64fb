"""Secrets: values that the server keeps encrypted and never shows again."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import ApiError, UsageError
from cli.language.flags import refuse, refused
from cli.language.hidden import given_value
from cli.language.options import Fields, Flag
from cli.language.registry import command
from cli.resources import short_id

_NAME = typer.Argument(metavar="[NAME]", help="The secret's name, such as WANDB_API_KEY, or its id.")
_ALSO = typer.Option("--name", "--id", metavar="NAME", help="The same, as a flag.", show_default=False)
_VALUE = typer.Option(
    "--value",
    metavar="TEXT",
    help="The value. Who can list this machine's processes sees it; a pipe or a file hides it.",
    show_default=False,
)
_FROM_FILE = typer.Option("--from-file", metavar="PATH", help="A file with the value.", show_default=False)
# A value at the wrong place is not repeated in an error, as any other word would be.
_MISPLACED = typer.Argument(hidden=True, metavar="", help="")
_NO_AWS = "nothing here reads from AWS; a secret holds any one value"
_FLAGS = (
    Flag("key-name", "keyName", "What the value is called; the secret's name unless given."),
    refused("aws-access-key-id", _NO_AWS),
    refused("aws-secret-access-key", _NO_AWS),
)


@command(
    "create",
    "secret",
    flags=_FLAGS,
    example="firectl create secret WANDB_API_KEY",
    see_also=("list secrets", "update secret", "delete secret"),
)
def create_secret(
    session: Session,
    fields: Fields,
    name: Annotated[str | None, _NAME] = None,
    named: Annotated[str | None, _ALSO] = None,
    value: Annotated[str | None, _VALUE] = None,
    from_file: Annotated[Path | None, _FROM_FILE] = None,
    misplaced: Annotated[list[str] | None, _MISPLACED] = None,
) -> None:
    """Keep a value on the server, encrypted.

    Without --value and --from-file it comes from a pipe, or is asked for.
    """
    refuse(fields, _FLAGS)
    _refuse_misplaced(misplaced)
    given = _one_name(name, named, "create")
    body = {"keyName": given.rpartition("/")[2], **fields.body, "name": _full_name(session, given)}
    body["value"] = given_value(session, value, from_file, prompt="Value")
    try:
        made = session.client.call("POST", session.parent("secret"), body=body)
    except ApiError as error:
        if error.status == 409:
            error.advice.append(f"to give it another value: firectl update secret {short_id(body['name'])}")
        raise
    session.output.resource(made)


@command(
    "update",
    "secret",
    flags=_FLAGS,
    example="firectl update secret WANDB_API_KEY",
    see_also=("get secret", "list secrets"),
)
def update_secret(
    session: Session,
    fields: Fields,
    name: Annotated[str | None, _NAME] = None,
    named: Annotated[str | None, _ALSO] = None,
    value: Annotated[str | None, _VALUE] = None,
    from_file: Annotated[Path | None, _FROM_FILE] = None,
    misplaced: Annotated[list[str] | None, _MISPLACED] = None,
) -> None:
    """Give a secret another value: as create takes it. Only with --key-name it keeps the one it has."""
    refuse(fields, _FLAGS)
    _refuse_misplaced(misplaced)
    target = _full_name(session, _one_name(name, named, "update"))
    new = given_value(session, value, from_file, prompt="" if fields.body else "New value")
    body = fields.body if new is None else {**fields.body, "value": new}
    mask = fields.update_mask if new is None else ",".join(filter(None, (fields.update_mask, "value")))
    session.output.resource(session.client.call("PATCH", target, query={"updateMask": mask}, body=body))


@command(
    "get",
    "secret",
    example="firectl get secret WANDB_API_KEY",
    see_also=("list secrets", "update secret"),
)
def get_secret(
    session: Session,
    name: Annotated[str | None, _NAME] = None,
    named: Annotated[str | None, _ALSO] = None,
) -> None:
    """Show a secret without its value, which nobody can read back."""
    session.output.resource(session.client.get(_full_name(session, _one_name(name, named, "get"))))


@command(
    "delete",
    "secret",
    example="firectl delete secret WANDB_API_KEY",
    see_also=("list secrets", "create secret"),
)
def delete_secret(
    session: Session,
    name: Annotated[str | None, _NAME] = None,
    named: Annotated[str | None, _ALSO] = None,
) -> None:
    """Delete a secret."""
    standard.delete(session, "secret", _full_name(session, _one_name(name, named, "delete")))


def _refuse_misplaced(words: list[str] | None) -> None:
    if words:
        raise UsageError(
            "a value does not stand behind the name",
            advice=["leave it out to be asked for it, or use a pipe, --from-file PATH or --value TEXT"],
        )


def _one_name(name: str | None, named: str | None, verb: str) -> str:
    if name and named and name != named:
        raise UsageError(f'which one: "{name}" or "{named}"?')
    given = name or named
    if not given:
        raise UsageError("which secret?", advice=[f"firectl {verb} secret NAME", "firectl list secrets"])
    return given


def _full_name(session: Session, given: str) -> str:
    """The resource name; ids are in lower case with hyphens, so that `WANDB_API_KEY` has `wandb-api-key`."""
    head, _, last = given.rpartition("/")
    id = re.sub(r"[_.\s]+", "-", last.lower()).strip("-")
    return session.name("secret", f"{head}/{id}" if head else id)
