"""From the `model` of a request to the deployed model that answers it.

The snapshot and the caller go in, a route comes out, or nothing; nothing else plays a part. Whoever may not
reach a route gets the same nothing as for a name that does not exist.

| form | example |
| --- | --- |
| model | `accounts/acme/models/m`, `acme/m`, `m` (one's own) |
| deployed model | `accounts/acme/deployedModels/m-1a2b`, `acme/m-1a2b`, `m-1a2b` |
| deployment (its base model) | `accounts/acme/deployments/d`, `acme/d`, `d` |
| model, by its name on the Hugging Face hub | `nomic-ai/nomic-embed-text-v1.5`, as `huggingFaceUrl` says |
| either of the first two on a deployment | `<model>#accounts/acme/deployments/d`, `<model>#acme/d` |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from gateway.snapshot import Key, Route, Snapshot

PLATFORM_ALIAS = "fireworks"
GONE = frozenset({"UNDEPLOYING"})
MOST_KEPT = 10_000
"""Names whose routes are remembered for as long as the snapshot is the newest."""
LONGEST_KEPT = 300


class Names:
    """How one caller's identifiers read: bare ids are its own, `fireworks` is the platform's account."""

    def __init__(self, account_id: str, platform_account: str) -> None:
        self.account_id = account_id
        self.platform_account = platform_account

    def read(self, text: str) -> tuple[str, Key] | None:
        """(collection, or "" when the text does not say, key); None when the text is no name."""
        parts = text.split("/")
        if not all(parts):
            return None
        if len(parts) == 1:
            return "", (self.account_id, parts[0])
        if len(parts) == 2:
            return "", (self._account(parts[0]), parts[1])
        if len(parts) == 4 and parts[0] == "accounts":
            return parts[2], (self._account(parts[1]), parts[3])
        return None

    def _account(self, account_id: str) -> str:
        return self.platform_account if account_id == PLATFORM_ALIAS else account_id


def resolve(snapshot: Snapshot, account_id: str, platform_account: str, identifier: str) -> Route | None:
    """The route that `identifier` means to a caller of `account_id`, if there is one it may reach."""
    asked = (account_id, platform_account, identifier)
    if asked in snapshot.resolved:
        return snapshot.resolved[asked]
    found = _resolve(snapshot, account_id, platform_account, identifier)
    if len(identifier) <= LONGEST_KEPT:
        if len(snapshot.resolved) >= MOST_KEPT:
            snapshot.resolved.clear()
        snapshot.resolved[asked] = found
    return found


def _resolve(snapshot: Snapshot, account_id: str, platform_account: str, identifier: str) -> Route | None:
    names = Names(account_id, platform_account)
    left, hash_sign, right = identifier.partition("#")
    deployment = names.read(right) if hash_sign else None
    if hash_sign and (deployment is None or deployment[0] not in ("", "deployments")):
        return None
    name = names.read(left)
    found = _named(snapshot, *name, on_deployment=deployment is not None) if name else iter(())
    # Anybody can say that a model is what a hub calls so; what others say leads nobody away.
    trusted = (account_id, platform_account)
    hub = [r for r in snapshot.by_hub_name.get(left, ()) if r.model.account_id in trusted]
    for routes in chain(found, (hub,)):
        reachable = [r for r in routes if r.is_reachable_by(account_id) and r.state not in GONE]
        if deployment is not None:
            reachable = [r for r in reachable if (r.deployment.account_id, r.deployment.id) == deployment[1]]
        if reachable:
            return _preferred(reachable, account_id)
    return None


def reachable_models(snapshot: Snapshot, account_id: str) -> list[Route]:
    """One route for each model that the caller can query now, ordered by the model's name."""
    best: dict[str, Route] = {}
    for routes in snapshot.by_model.values():
        found = _preferred(
            [r for r in routes if r.is_reachable_by(account_id) and r.state in ("DEPLOYED", "UPDATING")],
            account_id,
        )
        if found is not None:
            best[found.model.name] = found
    return [best[name] for name in sorted(best)]


def _named(
    snapshot: Snapshot, collection: str, key: Key, *, on_deployment: bool
) -> Iterator[Sequence[Route]]:
    """The routes with this name, as a model's first, then as a deployed model's, then as a deployment's."""
    if collection in ("", "models"):
        yield snapshot.by_model.get(key, ())
    if collection in ("", "deployedModels") and (route := snapshot.by_deployed_model.get(key)):
        yield (route,)
    if collection in ("", "deployments") and not on_deployment:
        yield [route for route in snapshot.by_deployment.get(key, ()) if route.is_base]


def _preferred(routes: Sequence[Route], account_id: str) -> Route | None:
    """What is deployed before what is not yet, then the default one, the caller's own, the oldest."""
    return min(
        routes,
        key=lambda r: (r.state == "DEPLOYING", not r.default, r.account_id != account_id, r.create_time),
        default=None,
    )
