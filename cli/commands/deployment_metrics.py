"""How deployments were used lately."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CliError
from cli.language.flags import refuse, refused
from cli.language.options import Fields, Flag
from cli.language.registry import command
from cli.resources import RESOURCES

_NO_SERIES = "the server tells sums over the time up to now, not series; see --time-range"
_FLAGS = (
    Flag("time-range", "?timeRange", "How far back: 30m, 1h, 7d; an hour unless given."),
    refused("start", _NO_SERIES),
    refused("end", _NO_SERIES),
    refused("interval", _NO_SERIES),
    refused("group-by", "metrics are told deployment by deployment"),
)


@command(
    "list",
    "deployment-metrics",
    flags=_FLAGS,
    example="firectl list deployment-metrics my-deployment --time-range 24h",
    see_also=("get deployment", "summary billing"),
)
def list_deployment_metrics(
    session: Session,
    fields: Fields,
    id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The deployment; all of them by default.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Only this one, such as tokens-per-second.", show_default=False),
    ] = None,
) -> None:
    """Show requests, tokens, latency and replicas of deployments over the time up to now."""
    refuse(fields, _FLAGS)
    names = [session.name("deployment", id)] if id else _all_names(session)
    rows = [row for name in names for row in _rows(session, name, fields.query)]
    if metric:
        rows = _only(rows, metric)
    session.output.rows(RESOURCES["deployment-metrics"], rows, session.account_id)


def _all_names(session: Session) -> list[str]:
    kind = RESOURCES["deployment"]
    pages = session.client.pages(session.parent(kind.noun), kind.key, {"pageSize": 200})
    return [str(row["name"]) for page, _token in pages for row in page]


def _rows(session: Session, name: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = session.client.get(f"{name}:metrics", query).get("metrics") or {}
    for metric, value in found.items():
        yield {"deployment": name, "metric": metric, "value": value}


def _only(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The rows of one metric, which may be written `tokens-per-second`."""
    wanted = metric.upper().replace("-", "_")
    known = dict.fromkeys(row["metric"] for row in rows)
    if rows and wanted not in known:
        raise CliError(f'there is no metric "{metric}" here; there are: {", ".join(known)}')
    return [row for row in rows if row["metric"] == wanted]
