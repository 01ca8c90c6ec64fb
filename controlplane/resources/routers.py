"""Every collection's endpoints."""

from controlplane.resources.accounts.endpoints import router as accounts
from controlplane.resources.api_keys.endpoints import router as api_keys
from controlplane.resources.datasets.endpoints import router as datasets
from controlplane.resources.deployed_models.endpoints import router as deployed_models
from controlplane.resources.deployments.endpoints import router as deployments
from controlplane.resources.fine_tuning_jobs.endpoints import router as fine_tuning_jobs
from controlplane.resources.models.endpoints import router as models
from controlplane.resources.users.endpoints import router as users

ROUTERS = (accounts, users, api_keys, models, datasets, fine_tuning_jobs, deployments, deployed_models)
