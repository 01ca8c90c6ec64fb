"""Every table of the control plane, imported in one place for Alembic and for foreign keys."""

from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.deployed_models.tables import DeployedModelRow
from controlplane.resources.deployments.tables import DeploymentRow, ReplicaAdapterRow, ReplicaRow
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.garbage import GarbageRow
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.usage.tables import UsageRow
from controlplane.resources.users.tables import UserRow

__all__ = [
    "AccountRow",
    "ApiKeyRow",
    "AuditLogRow",
    "DatasetRow",
    "DeployedModelRow",
    "DeploymentRow",
    "FineTuningJobRow",
    "GarbageRow",
    "ModelRow",
    "ReplicaAdapterRow",
    "ReplicaRow",
    "UsageRow",
    "UserRow",
]
