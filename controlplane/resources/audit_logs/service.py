"""Writing the audit log: a line in the transaction of the change itself."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.auth import Caller
from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.rest.access import CALLER, CREATED
from controlplane.rest.schema import WRITE_ONLY_FIELDS

LARGEST_BODY = 8 * 1024
"""Characters of JSON up to which a request's body is kept whole."""
REDACTED = "(not kept)"


def record(session: AsyncSession) -> None:
    """Note the caller's change; the transaction that makes it takes this with it, or neither happens."""
    caller: Caller = session.info[CALLER]
    call = caller.call
    if call is None:
        return
    session.add(
        AuditLogRow(
            account_id=caller.account_id,
            user_id=caller.user_id,
            email=caller.email,
            key_id=caller.key_id,
            action=call.action,
            resource=session.info.get(CREATED) or call.resource,
            request=kept(call.body),
            query=call.query,
            client_address=call.client_address,
        )
    )


def kept(body: Any) -> dict[str, Any]:
    """What the log keeps of a body: write-only values never, and of a large one the fields' names only."""
    if not isinstance(body, dict):
        return {}
    shown: dict[str, Any] = redact(body)
    if len(json.dumps(shown)) > LARGEST_BODY:
        return dict.fromkeys(list(shown)[:100], "...")
    return shown


def redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: REDACTED if name in WRITE_ONLY_FIELDS else redact(inner) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [redact(inner) for inner in value]
    return value
