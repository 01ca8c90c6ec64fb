"""get, list and delete, the same for every resource that the table gives them to; and a plain update."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from cli.errors import ApiError, CliError, Interrupted
from cli.options import Fields, Flag, Kind
from cli.registry import command
from cli.resources import RESOURCES, Resource, short_id
from cli.session import Session
from cli.waiting import StillGoing

LIST_FLAGS = (
    Flag("filter", "?filter", 'Only those that match, such as state="READY" AND create_time>"2025-01-01".'),
    Flag("order-by", "?orderBy", 'Fields to sort by, such as "create_time desc".'),
    Flag("page-size", "?pageSize", "How many to ask for at a time.", Kind.INTEGER),
    Flag("page-token", "?pageToken", "Where to start: the token that an earlier page named."),
)
_ID = typer.Argument(metavar="ID", help="Its id or name.")
_MORE_LIST_FLAGS = {
    "deployment": (Flag("show-deleted", "?showDeleted", "Show deleted ones too.", Kind.SWITCH),),
}


def show_list(session: Session, kind: Resource, parent: str, fields: Fields, no_paginate: bool) -> None:
    """Prints every page, or one page and how to get the next."""
    rows: list[dict[str, Any]] = []
    # Page size 200 is the most that a server gives: fewer round trips when all are wanted.
    query = fields.query if no_paginate else {"pageSize": 200, **fields.query}
    for page, token in session.client.pages(parent, kind.collection, query):
        rows += page
        if no_paginate:
            if token:
                session.output.note(f"There are more: --page-token {token}")
            break
    session.output.rows(kind, rows, session.account_id)


def update(session: Session, noun: str, given: str, fields: Fields) -> None:
    """Changes the fields that flags name, and no others."""
    if not fields.paths:
        raise CliError("nothing to change", advice=[f"firectl update {noun} --help lists the flags"])
    changed = session.client.call(
        "PATCH",
        session.name(noun, given),
        query={"updateMask": fields.update_mask, **fields.query},
        body=fields.body,
    )
    session.output.resource(changed)


def delete(session: Session, noun: str, given: str, query: dict[str, Any] | None = None) -> str:
    """Deletes and says so; returns the full name."""
    name = session.name(noun, given)
    session.client.call("DELETE", name, query=query)
    session.output.note(f"Deleted {name}")
    if session.output.as_json:
        session.output.json({})
    return name


def create(
    session: Session, noun: str, name: str, *, body: dict[str, Any], then: dict[str, Any]
) -> dict[str, Any]:
    """Creates what files will be uploaded to; a leftover of an upload that was cut short is named as such."""
    try:
        return session.client.call("POST", session.parent(noun), body=body, then=then)
    except ApiError as error:
        if error.status == 409:
            error.advice += _advice_for_taken(session, noun, name)
        raise


def _advice_for_taken(session: Session, noun: str, name: str) -> list[str]:
    short = short_id(name)
    try:
        state = str(session.client.get(name).get("state") or "")
    except CliError:
        state = ""  # the conflict is told already; only the better advice could not be had
    if state == "UPLOADING":
        return [
            f"it is still UPLOADING; if nothing uploads to it, firectl delete {noun} {short} and try again"
        ]
    return [f"take another id, or first: firectl delete {noun} {short}"]


@contextmanager
def taken_back_on_failure(session: Session, noun: str, name: str) -> Iterator[None]:
    """Deletes what this very command created when the rest of it fails, and says so.

    When only the waiting ended, the server is still at work on it: then it stays.
    """
    try:
        yield
    except (Interrupted, StillGoing):
        raise
    except KeyboardInterrupt:
        raise Interrupted("upload stopped", details=_take_back(session, noun, name)) from None
    except CliError as error:
        error.details += _take_back(session, noun, name)
        raise


def _take_back(session: Session, noun: str, name: str) -> list[str]:
    """Deletes it; returns what to tell the user."""
    try:
        session.client.call("DELETE", name)
    except CliError as error:
        if isinstance(error, ApiError) and error.status == 404:
            return ["nothing was left behind"]
        return [f"{name} is left unfinished; delete it with: firectl delete {noun} {name}"]
    return [f"nothing was left behind: {name} was deleted"]


def _register_get(kind: Resource) -> None:
    @command("get", kind.noun, help=f"Show {kind.with_article}.")
    def get(session: Session, id: Annotated[str, _ID]) -> None:
        session.output.resource(session.get(kind.noun, id))


def _register_list(kind: Resource) -> None:
    flags = (*LIST_FLAGS, *_MORE_LIST_FLAGS.get(kind.noun, ()))

    @command("list", kind.noun, flags=flags, help=f"List {kind.plural_words}.")
    def list_(
        session: Session,
        fields: Fields,
        no_paginate: Annotated[
            bool, typer.Option("--no-paginate/--paginate", help="Only one page, not all of them.")
        ] = False,
    ) -> None:
        parent = kind.parent("" if kind.noun == "account" else session.account_id)
        show_list(session, kind, parent, fields, no_paginate)


def _register_delete(kind: Resource) -> None:
    @command("delete", kind.noun, help=f"Delete {kind.with_article}.")
    def delete_(session: Session, id: Annotated[str, _ID]) -> None:
        delete(session, kind.noun, id)


_REGISTER = {"get": _register_get, "list": _register_list, "delete": _register_delete}
for _kind in RESOURCES.values():
    for _verb in _kind.verbs:
        _REGISTER[_verb](_kind)
