"""get, list and delete, the same for every resource that the table gives them to; and a plain update."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CAN_GO_ON, ApiError, CliError, Interrupted, Stopped, UsageError
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command, index
from cli.resources import RESOURCES, Resource, short_id
from cli.show.waiting import StillGoing, WaitFailed, status_of
from cli.show.watching import WATCHED
from cli.show.watching import watch as watch_resource

LIST_FLAGS = (
    Flag("filter", "?filter", 'Only those that match, such as state="READY" AND create_time>"2025-01-01".'),
    Flag("order-by", "?orderBy", 'Fields to sort by, such as "create_time desc".'),
    Flag("page-size", "?pageSize", "The most to list; by default all.", Kind.INTEGER),
    Flag("page-token", "?pageToken", "Where to start: the token that an earlier page named."),
)
_ALL = frozenset({"pageSize", "pageToken", "orderBy", "showDeleted"})
"""Parts of a query that leave nothing out."""
PAGE_SIZE = 200
"""The most that a server gives at a time: fewer round trips when all are wanted."""
_ID = typer.Argument(metavar="ID", help="Its id or name.")
_WATCH = typer.Option(
    "--watch/--no-watch", help="Keep showing what it is doing until it is ready or has ended."
)
NoPaginate = Annotated[
    bool, typer.Option("--no-paginate/--paginate", help="List all, whatever --page-size says.")
]
_EXAMPLE_IDS = {
    "user": "alice",
    "quota": "serverless-inference-rpm",
    "identity-provider": "company",
    "deployment-shape": "fast",
    "deployment-shape-version": "fast/versions/1a2b3c",
}
_MORE_LIST_FLAGS = {
    "deployment": (Flag("show-deleted", "?showDeleted", "Show deleted ones too.", Kind.SWITCH),),
}


def show_list(
    session: Session, kind: Resource, parent: str, fields: Fields, no_paginate: bool, *, always: str = ""
) -> int:
    """Prints all, or as many as `--page-size` says and how to get the next; returns how many.

    `always` is a filter of the command's own, to go with the user's.
    """
    query = fields.query
    most = None if no_paginate else query.get("pageSize")
    given = query.get("filter")
    wanted = f"{always} AND ({given})" if always and given else given or always
    rows, token = _listed(session, kind, parent, {**query, "filter": wanted} if wanted else query, most)
    if token:
        session.output.note(f"There are more: --page-token {token}")
    filtered = any(value for key, value in query.items() if key not in _ALL)
    session.output.rows(kind, rows, session.account_id, filtered=filtered)
    return len(rows)


def _listed(
    session: Session, kind: Resource, parent: str, query: dict[str, Any], most: int | None
) -> tuple[list[dict[str, Any]], str]:
    """(`most` rows or all, the token of what comes after them)."""
    if most is not None and most < 1:
        raise UsageError("--page-size must be at least 1")
    rows: list[dict[str, Any]] = []
    token = str(query.get("pageToken") or "")
    while most is None or len(rows) < most:
        size = PAGE_SIZE if most is None else min(PAGE_SIZE, most - len(rows))
        place = {"pageToken": token} if token else {}
        page = session.client.get(parent, {**query, "pageSize": size, **place})
        rows += page.get(kind.key) or []
        following = str(page.get("nextPageToken") or "")
        if not following or following == token:
            return rows, ""
        token = following
    return rows, token


def update(session: Session, noun: str, given: str, fields: Fields) -> None:
    """Changes the fields that flags name, and no others."""
    if not fields.paths:
        raise UsageError("nothing to change", advice=[f"firectl update {noun} --help lists the flags"])
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
            f"it is still UPLOADING; to go on with that: firectl upload {noun} {short} PATH",
            f"to begin anew: firectl delete {noun} {short}",
        ]
    return [f"take another id, or first: firectl delete {noun} {short}"]


@contextmanager
def taken_back_on_failure(session: Session, noun: str, name: str) -> Iterator[None]:
    """Deletes what this very command created when the rest of it fails, and says so.

    When only the waiting ended, the server is still at work on it: then it stays. So does what an upload can
    go on with.
    """
    try:
        yield
    except (Interrupted, StillGoing, Stopped):
        raise
    except WaitFailed as error:
        if status_of(error.resource)[0] != CAN_GO_ON:
            error.details += _take_back(session, noun, name)
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
    if kind.noun in WATCHED:
        _register_get_with_watch(kind)
        return

    @command(
        "get",
        kind.noun,
        help=f"Show {kind.with_article}.",
        example=f"firectl get {kind.noun} {_example_id(kind)}",
        see_also=_others(kind, "get"),
    )
    def get(session: Session, id: Annotated[str, _ID]) -> None:
        session.output.resource(session.get(kind.noun, id))


def _register_get_with_watch(kind: Resource) -> None:
    @command(
        "get",
        kind.noun,
        help=f"Show {kind.with_article}.",
        example=f"firectl get {kind.noun} {_example_id(kind)} --watch",
        see_also=_others(kind, "get"),
    )
    def get(session: Session, id: Annotated[str, _ID], watch: Annotated[bool, _WATCH] = False) -> None:
        if watch:
            watch_resource(session, kind.noun, id)
        else:
            session.output.resource(session.get(kind.noun, id))


def _example_id(kind: Resource) -> str:
    return _EXAMPLE_IDS.get(kind.noun) or f"my-{kind.noun.rpartition('-')[2]}"


def _in_order(kind: Resource) -> str:
    dated = any(column.key == "createTime" for column in kind.columns)
    return ' --order-by "create_time desc"' if dated else ""


def _others(kind: Resource, verb: str) -> tuple[str, ...]:
    """Other commands of the same resource."""
    known = [other for other, noun in index() if noun == kind.noun and other != verb]
    first = sorted(known, key=lambda other: other not in ("get", "list", "create", "update"))[:3]
    return tuple(f"{other} {kind.plural if other == 'list' else kind.noun}" for other in first) or ("whoami",)


def _register_list(kind: Resource) -> None:
    flags = (*LIST_FLAGS, *_MORE_LIST_FLAGS.get(kind.noun, ()))

    @command(
        "list",
        kind.noun,
        flags=flags,
        help=f"List {kind.plural_words}.",
        example=f"firectl list {kind.plural}{_in_order(kind)}",
        see_also=_others(kind, "list"),
    )
    def list_(
        session: Session,
        fields: Fields,
        no_paginate: NoPaginate = False,
    ) -> None:
        parent = kind.parent("" if kind.noun == "account" else session.account_id)
        show_list(session, kind, parent, fields, no_paginate)


def _register_delete(kind: Resource) -> None:
    @command(
        "delete",
        kind.noun,
        help=f"Delete {kind.with_article}.",
        example=f"firectl delete {kind.noun} {_example_id(kind)}",
        see_also=_others(kind, "delete"),
    )
    def delete_(session: Session, id: Annotated[str, _ID]) -> None:
        delete(session, kind.noun, id)


_REGISTER = {"get": _register_get, "list": _register_list, "delete": _register_delete}
for _kind in RESOURCES.values():
    for _verb in _kind.verbs:
        _REGISTER[_verb](_kind)
