"""Every collection's endpoints."""

from controlplane.resources.accounts.endpoints import router as accounts
from controlplane.resources.api_keys.endpoints import router as api_keys
from controlplane.resources.audit_logs.endpoints import router as audit_logs
from controlplane.resources.datasets.endpoints import router as datasets
from controlplane.resources.deployed_models.endpoints import router as deployed_models
from controlplane.resources.deployment_shapes.endpoints import router as deployment_shapes
from controlplane.resources.deployment_shapes.version_endpoints import router as deployment_shape_versions
from controlplane.resources.deployments.endpoints import router as deployments
from controlplane.resources.dpo_jobs.endpoints import router as dpo_jobs
from controlplane.resources.fine_tuning_jobs.endpoints import router as fine_tuning_jobs
from controlplane.resources.identity_providers.endpoints import router as identity_providers
from controlplane.resources.inspections.endpoints import router as inspections
from controlplane.resources.ledger.endpoints import router as billing
from controlplane.resources.models.endpoints import configs as model_configs
from controlplane.resources.models.endpoints import router as models
from controlplane.resources.quotas.endpoints import router as quotas
from controlplane.resources.reservations.endpoints import router as reservations
from controlplane.resources.secrets.endpoints import router as secrets
from controlplane.resources.supervised_fine_tuning_jobs.endpoints import (
    router as supervised_fine_tuning_jobs,
)
from controlplane.resources.users.endpoints import router as users
from controlplane.signin.endpoints import router as signin

ROUTERS = (
    accounts,
    users,
    api_keys,
    identity_providers,
    signin,
    secrets,
    audit_logs,
    models,
    model_configs,
    datasets,
    inspections,
    fine_tuning_jobs,
    supervised_fine_tuning_jobs,
    dpo_jobs,
    deployments,
    deployed_models,
    deployment_shapes,
    deployment_shape_versions,
    quotas,
    reservations,
    billing,
)
