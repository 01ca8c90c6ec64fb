"""Quotas: what the account may use, and how much of it is used."""

from typing import Annotated

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import UsageError
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command


@command(
    "update",
    "quota",
    flags=(Flag("value", "value", "The new limit, at most the quota's max value.", Kind.INTEGER),),
    example="firectl update quota serverless-inference-rpm --value 300",
    see_also=("list quotas", "get quota"),
)
def update_quota(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The quota's id, such as monthly-spend-usd.")],
    fields: Fields,
) -> None:
    """Set a quota, up to the most that whoever runs the server allows. Only admins may."""
    if not fields.paths:
        raise UsageError("which value?", advice=[f"firectl update quota {id} --value N"])
    standard.update(session, "quota", id, fields)
