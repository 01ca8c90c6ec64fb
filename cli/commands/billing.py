"""What was used, and what it costs."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cli.connection.session import Session
from cli.errors import UsageError
from cli.language import moments
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.resources import RESOURCES
from cli.show.money import amount, dollars, total
from cli.show.output import proto_names
from cli.show.tables import Column
from cli.show.usage import COLUMNS, LISTS, usage_rows

_KIND = RESOURCES["billing"]
_NOTHING = "Nothing was used in that time"


def _counted(title: str, key: str) -> Column:
    return Column(title, lambda row, _account_id: str(row.get(key) or ""), key)


_USAGE = (
    Column("DAY", lambda row, _account_id: str(row.get("startTime") or "").partition("T")[0]),
    Column("USAGE", lambda row, _account_id: str(row.get("usageType") or "")),
    Column("GROUP", lambda row, _account_id: ", ".join(v for v in (row.get("group") or {}).values() if v)),
    _counted("REQUESTS", "requestCount"),
    _counted("PROMPT TOKENS", "promptTokens"),
    _counted("COMPLETION TOKENS", "completionTokens"),
    _counted("GPU SECONDS", "acceleratorSeconds"),
    _counted("TRAINED TOKENS", "tokens"),
    Column("COST", lambda row, _account_id: dollars(row.get("totalCost"))),
)

_TYPES = ("all", "serverless", "dedicated-deployment", "training")


@command(
    "summary",
    "billing",
    example="firectl billing summary --start-time 2030-01-01 --end-time 2030-02-01",
    see_also=("export-metrics billing", "list quotas", "get account"),
)
def show_summary(session: Session, start_time: moments.Start = None, end_time: moments.End = None) -> None:
    """Show what each model, deployment and job came to: this month so far, or between two days.

    Days are whole days in UTC. The last one, --end-time, is not counted.
    """
    start, end = _period(start_time, end_time)
    summary = session.client.get(
        f"accounts/{session.account_id}/billing/summary",
        {"startTime": moments.stamp(start), "endTime": moments.stamp(end)},
    )
    if session.output.as_json:
        session.output.json(proto_names(summary))
        return
    items = sorted(summary.get("lineItems") or [], key=lambda item: -amount(item.get("totalCost")))
    session.output.rows(_KIND, items, session.account_id, none=_NOTHING)
    session.output.line(f"Total Cost: {dollars(summary.get('totalCost'))}")


@command(
    "get-usage",
    "billing",
    flags=(
        Flag("usage-type", "?usageType", "What to show; all of it by default.", choices=_TYPES),
        Flag(
            "group-by", "groupBy", "Such as model_name, deployment_name, api_key_id or user_id.", Kind.WORDS
        ),
        Flag("timezone", "?timezone", "Whose days, such as Europe/London; UTC by default."),
    ),
    example="firectl billing get-usage --start-time 2030-01-01 --end-time 2030-02-01 --group-by model_name",
    see_also=("summary billing", "export-metrics billing"),
)
def get_usage(
    session: Session,
    fields: Fields,
    start_time: moments.Start = None,
    end_time: moments.End = None,
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="NAME=VALUE", help="Only this, as in deployment_name=….", show_default=False
        ),
    ] = None,
    account_costs_only: Annotated[
        bool, typer.Option("--account-costs-only", help="Only what it comes to in all.")
    ] = False,
) -> None:
    """Show what was used by day and group: this month so far, or up to 31 days from --start-time."""
    start, end = _period(start_time, end_time)
    query = {"startTime": moments.stamp(start), "endTime": moments.stamp(end), **_usage_query(fields)}
    query |= _filters(wanted or [])
    usage = session.client.get(f"accounts/{session.account_id}/billingUsage", query)
    if session.output.as_json:
        session.output.json(proto_names(usage))
        return
    rows = [row for key in LISTS for row in usage.get(key) or []]
    if not account_costs_only:
        session.output.rows(replace(_KIND, columns=_USAGE), rows, session.account_id, none=_NOTHING)
    session.output.line(f"Total Cost: {total(row.get('totalCost') for row in rows)}")


@command(
    "export-metrics",
    "billing",
    example="firectl billing export-metrics --start-time 720h --filename usage.csv",
    see_also=("summary billing", "list deployment-metrics"),
)
def export_metrics(
    session: Session,
    start_time: moments.Start = None,
    end_time: moments.End = None,
    filename: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The file to write; by default it is printed.", show_default=False),
    ] = None,
) -> None:
    """Write what was used as CSV: one line for each day and model, deployment or job.

    By default everything since the account was made.
    """
    session.ask_account()
    account = session.client.look(f"accounts/{session.account_id}")
    made = str(account.get("createTime") or "")
    start = moments.earlier(start_time, "--start-time") if start_time else moments.midnight(made)
    end = moments.earlier(end_time, "--end-time") if end_time else _tomorrow()
    if start >= end:
        raise UsageError("--start-time must be before --end-time")
    rows = list(usage_rows(session, start, end, str(account.get("email") or "")))
    if session.output.as_json:
        session.output.json(rows)
    elif filename is None:
        _write_csv(session.output.stdout, rows)
    if filename is not None:
        with filename.open("w", newline="", encoding="utf-8") as file:
            _write_csv(file, rows)
        session.output.note(f"Wrote {len(rows)} lines to {filename}")


def _period(start: str | None, end: str | None) -> tuple[datetime, datetime]:
    """What is asked for; this month so far, when nothing is."""
    return (
        moments.earlier(start, "--start-time") if start else moments.midnight().replace(day=1),
        moments.earlier(end, "--end-time") if end else _tomorrow(),
    )


def _usage_query(fields: Fields) -> dict[str, str]:
    """The flags in the API's spelling: `dedicated-deployment` is `DEDICATED_DEPLOYMENT`."""
    kind = str(fields.query.get("usageType") or "all")
    asked = {"usageType": "" if kind == "all" else kind.upper().replace("-", "_")}
    return {**fields.query, **asked, "groupBy": ",".join(fields.body.get("groupBy") or ())}


def _filters(given: Iterable[str]) -> dict[str, str]:
    """`model_name=m` as the API takes it; several values of one name are alternatives."""
    found: dict[str, list[str]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f'invalid value for --filter: "{pair}" is not of the form name=value')
        found.setdefault(name, []).append(value)
    return {f"filter[{name}][values]": ",".join(values) for name, values in found.items()}


def _tomorrow() -> datetime:
    return moments.midnight() + timedelta(days=1)


def _write_csv(file: TextIO, rows: Iterable[Mapping[str, str]]) -> None:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
