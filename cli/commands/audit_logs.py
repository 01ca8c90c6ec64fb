"""The audit log: who changed what, and who tried to."""

from cli.commands import standard
from cli.connection.session import Session
from cli.language import moments
from cli.language.options import Fields, Flag
from cli.language.registry import command
from cli.resources import RESOURCES


@command(
    "list",
    "audit-log",
    flags=(Flag("email", "?email", "Only what the user with this address did."), *standard.LIST_FLAGS),
    example="firectl list audit-logs --start-time 24h --email alice@example.com",
    see_also=("list users", "list api-keys"),
)
def list_audit_logs(
    session: Session,
    fields: Fields,
    start_time: moments.Start = None,
    end_time: moments.End = None,
    no_paginate: standard.NoPaginate = False,
) -> None:
    """List changes, the newest first. Only admins see them."""
    if start_time:
        fields.query["startTime"] = moments.stamp(moments.earlier(start_time, "--start-time"))
    if end_time:
        fields.query["endTime"] = moments.stamp(moments.earlier(end_time, "--end-time"))
    standard.show_list(session, RESOURCES["audit-log"], session.parent("audit-log"), fields, no_paginate)
