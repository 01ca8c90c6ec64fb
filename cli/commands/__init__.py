"""One module for each resource, and one for what all resources share. Importing this registers them all."""

from cli.commands import (
    accounts,
    api_keys,
    datasets,
    deployed_models,
    deployments,
    fine_tuning_jobs,
    models,
    setup,
    signin,
    standard,
    users,
)

__all__ = [
    "accounts",
    "api_keys",
    "datasets",
    "deployed_models",
    "deployments",
    "fine_tuning_jobs",
    "models",
    "setup",
    "signin",
    "standard",
    "users",
]
