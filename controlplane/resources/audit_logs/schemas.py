from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.rest.schema import ApiModel, Status, Timestamp, output_only


class AuditLog(ApiModel):
    """One change that somebody made, or tried to make and was refused."""

    name: str = output_only("")
    timestamp: Timestamp | None = output_only()
    message: str = output_only("", description="The method, such as `CreateDeployment`.")
    resource: str = output_only("", description="The name of what was changed.")
    email: str = output_only("", description="Who did it.")
    user: str = output_only("", description="The name of that user.")
    api_key_id: str = output_only("", description="The API key or the sign-in that was used.")
    client_address: str = output_only("")
    request: dict[str, Any] = Field(
        default_factory=dict,
        description="The body that was sent, without write-only fields; of a large one the fields' names.",
        json_schema_extra={"readOnly": True},
    )
    query: str = output_only("")
    status: Status | None = output_only(
        description="`OK`, or `PERMISSION_DENIED` for what was refused; not every refused attempt is kept."
    )

    @classmethod
    def of(cls, row: AuditLogRow) -> Self:
        return cls(
            name=f"accounts/{row.account_id}/auditLogs/{row.uid.hex}",
            timestamp=row.create_time,
            message=row.action,
            resource=row.resource,
            email=row.email,
            user=f"accounts/{row.account_id}/users/{row.user_id}",
            api_key_id=row.key_id,
            client_address=row.client_address,
            request=row.request,
            query=row.query,
            status=Status.of(row),
        )
