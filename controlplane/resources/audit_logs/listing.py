from __future__ import annotations

from sqlalchemy import String, cast, func

from controlplane.resources.audit_logs.schemas import AuditLog
from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.rest.filters.fields import enum, name_of, text, time
from controlplane.rest.listing import Listing
from controlplane.rest.schema import STATUS_CODES

UID = func.replace(cast(AuditLogRow.uid, String), "-", "")

LISTING = Listing(
    key="auditLogs",
    message=AuditLog,
    unique=AuditLogRow.uid,
    fields={
        "name": name_of(("accounts", AuditLogRow.account_id, "auditLogs", UID)),
        "timestamp": time(AuditLogRow.create_time),
        "message": text(AuditLogRow.action),
        "resource": text(AuditLogRow.resource),
        "email": text(AuditLogRow.email),
        "user": name_of(("accounts", AuditLogRow.account_id, "users", AuditLogRow.user_id), unique=False),
        "api_key_id": text(AuditLogRow.key_id),
        "client_address": text(AuditLogRow.client_address),
        "query": text(AuditLogRow.query),
        "status.code": enum(AuditLogRow.status_code, STATUS_CODES),
        "status.message": text(AuditLogRow.status_message),
    },
    order="timestamp desc",
    search=("message", "resource", "email"),
)
