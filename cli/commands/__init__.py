"""Which module holds which commands, so that one command runs without the others being imported.

Importing this imports no command. `cli.language.registry` reads it, and a test compares it with what the
modules register.
"""

from cli.resources import JOBS, RESOURCES

# A noun in brackets may be left out: `deploy [model]` is typed `deploy MODEL` or `model deploy MODEL`.
INDEX: dict[str, tuple[str, ...]] = {
    "help": ("help",),
    "completion": ("completion",),
    "setup": ("whoami", "set-api-key", "version", "upgrade"),
    "signin": ("signin", "signout"),
    "chat": ("chat", "complete"),
    "accounts": ("get account", "update account"),
    "users": ("create user", "update user"),
    "api_keys": ("create api-key", "list api-key", "get api-key", "delete api-key"),
    "secrets": ("create secret", "update secret", "get secret", "delete secret"),
    "identity_providers": ("create identity-provider", "update identity-provider"),
    "quotas": ("update quota",),
    "reservations": ("list reservation",),
    "audit_logs": ("list audit-log",),
    "billing": ("summary billing", "get-usage billing", "export-metrics billing"),
    "models": ("create model", "upload model", "validate model", "update model", "download model"),
    "preparing": ("prepare-model", "prepare model", "import model"),
    "datasets": (
        "create dataset",
        "update dataset",
        "upload dataset",
        "validate dataset",
        "download dataset",
        "split dataset",
    ),
    "dataset_inspection": ("inspect dataset",),
    "deployments": (
        "create deployment",
        "update deployment",
        "scale deployment",
        "delete deployment",
        "undelete deployment",
    ),
    "deployment_metrics": ("list deployment-metrics",),
    "deployment_shapes": (
        "create deployment-shape",
        "update deployment-shape",
        "list deployment-shape",
        "list deployment-shape-version",
        "update deployment-shape-version",
        "match deployment-shape-version",
    ),
    "deployed_models": (
        "deploy [model]",
        "load-lora [model]",
        "undeploy [model]",
        "unload-lora [model]",
        "update deployed-model",
    ),
    "fine_tuning_jobs": (
        "create fine-tuning-job",
        "update fine-tuning-job",
    ),
    "supervised_fine_tuning_jobs": (
        "create supervised-fine-tuning-job",
        "estimate-cost supervised-fine-tuning-job",
    ),
    "checkpoints": ("list checkpoint", "promote checkpoint", "download checkpoint"),
    "dpo_jobs": ("create dpo-job", "estimate-cost dpo-job"),
    "job_actions": tuple(
        f"{verb} {noun}" for noun in JOBS for verb in ("cancel", "pause", "resume", "export-metrics")
    ),
    "logs": ("logs", *(f"logs {noun}" for noun in JOBS), "logs deployment"),
    "standard": tuple(f"{verb} {kind.noun}" for kind in RESOURCES.values() for verb in kind.verbs),
}
