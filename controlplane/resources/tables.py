"""Every table of the control plane, imported in one place for Alembic and for foreign keys."""

from controlplane.resources.accounts.tables import AccountRow
from controlplane.resources.api_keys.tables import ApiKeyRow
from controlplane.resources.audit_logs.tables import AuditLogRow
from controlplane.resources.datasets.tables import DatasetRow
from controlplane.resources.deployed_models.tables import DeployedModelRow
from controlplane.resources.deployment_shapes.tables import DeploymentShapeRow, DeploymentShapeVersionRow
from controlplane.resources.deployments.tables import (
    DeploymentRow,
    ReplicaAdapterRow,
    ReplicaRow,
    ScalingRow,
)
from controlplane.resources.fine_tuning_jobs.tables import FineTuningJobRow
from controlplane.resources.garbage import GarbageRow
from controlplane.resources.identity_providers.tables import IdentityProviderRow, TenantDomainRow
from controlplane.resources.inspections.tables import InspectionRow
from controlplane.resources.ledger.tables import LedgerRow, SpendRow
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.quotas.tables import QuotaRow
from controlplane.resources.reservations.tables import ReservationRow
from controlplane.resources.responses.tables import ResponseRow
from controlplane.resources.secrets.tables import SecretRow
from controlplane.resources.users.tables import UserRow
from controlplane.signin.tables import SignInRow, UserIdentityRow, UserSessionRow

__all__ = [
    "AccountRow",
    "ApiKeyRow",
    "AuditLogRow",
    "DatasetRow",
    "DeployedModelRow",
    "DeploymentRow",
    "DeploymentShapeRow",
    "DeploymentShapeVersionRow",
    "FineTuningJobRow",
    "GarbageRow",
    "IdentityProviderRow",
    "InspectionRow",
    "LedgerRow",
    "ModelRow",
    "QuotaRow",
    "ReplicaAdapterRow",
    "ReplicaRow",
    "ReservationRow",
    "ResponseRow",
    "ScalingRow",
    "SecretRow",
    "SignInRow",
    "SpendRow",
    "TenantDomainRow",
    "UserIdentityRow",
    "UserRow",
    "UserSessionRow",
]
