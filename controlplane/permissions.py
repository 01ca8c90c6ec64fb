"""What each role may do: one table, which the endpoints enforce and docs/api.md shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ADMIN = "admin"
USER = "user"
CONTRIBUTOR = "contributor"
INFERENCE_USER = "inference-user"
ROLES = (ADMIN, USER, CONTRIBUTOR, INFERENCE_USER)


class Grant(Enum):
    """How far a permission reaches."""

    NO = "no"
    OWN = "own"
    """Only what the caller created."""
    YES = "yes"


@dataclass(frozen=True)
class Permission:
    """Something that a caller may be allowed to do, and how far each role may."""

    name: str
    meaning: str
    admin: Grant
    user: Grant
    contributor: Grant
    inference_user: Grant

    def grant(self, role: str) -> Grant:
        found: Grant = getattr(self, role.replace("-", "_")) if role in ROLES else Grant.NO
        return found


_NO, _OWN, _YES = Grant.NO, Grant.OWN, Grant.YES

# A row for each permission: admin, user, contributor, inference-user.
PERMISSIONS: dict[str, Permission] = {
    permission.name: permission
    for permission in (
        Permission("inference", "run inference on any deployment", _YES, _YES, _YES, _YES),
        Permission(
            "resources.view",
            "see models, datasets, deployments, deployed models, shapes and jobs",
            *(_YES, _YES, _YES, _YES),
        ),
        Permission("resources.create", "create them", _YES, _YES, _YES, _NO),
        Permission("resources.change", "change and delete them", _YES, _YES, _OWN, _NO),
        Permission("account.view", "see the account", _YES, _YES, _YES, _YES),
        Permission("users.view", "see users and service accounts", _YES, _YES, _YES, _YES),
        Permission("users.manage", "create, change and delete them", _YES, _NO, _NO, _NO),
        Permission(
            "keys.manage",
            "see, create and delete API keys: one's own, or as an admin everybody's and service accounts'",
            *(_YES, _OWN, _OWN, _OWN),
        ),
        Permission("secrets.view", "see secrets' names, never their values", _YES, _YES, _YES, _NO),
        Permission("secrets.manage", "create, change and delete secrets", _YES, _YES, _NO, _NO),
        Permission("quotas.view", "see quotas and reservations", _YES, _YES, _YES, _YES),
        Permission("quotas.manage", "set quotas, up to what the platform allows", _YES, _NO, _NO, _NO),
        Permission("billing.view", "see usage and what it costs", _YES, _YES, _NO, _NO),
        Permission("identity.manage", "see and set up sign-in by identity providers", _YES, _NO, _NO, _NO),
        Permission("audit.view", "read the audit log", _YES, _NO, _NO, _NO),
    )
}
