"""Who asks, and what for: the caller's key, the route that its `model` means, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from controlplane.checks.architectures import EMBED, GENERATE, SCORE
from gateway.errors import GatewayError, invalid, model_not_found, unavailable
from gateway.gateway import Gateway
from gateway.keys import KnownKey
from gateway.limits import Limits
from gateway.resolver import resolve
from gateway.snapshot import Model, Route, Snapshot

ANSWERS = {
    GENERATE: "writes text: it is asked with /chat/completions, /completions, /messages and /responses",
    EMBED: "embeds text: it is asked with /embeddings",
    SCORE: "scores documents for a query: it is asked with /rerank",
}


async def authenticate(gateway: Gateway, scope: Scope, headers: Mapping[str, str]) -> KnownKey:
    """The key of a caller who may run inference."""
    key = await gateway.keys.authorise(headers)
    gateway.meter.note_use(key.uid)
    scope["notes"]["account"] = key.account_id
    return key


def current_snapshot(gateway: Gateway) -> Snapshot:
    if gateway.snapshot is None:
        raise unavailable("UNAVAILABLE", "the gateway is starting; try again")
    return gateway.snapshot


async def find_route(gateway: Gateway, key: KnownKey, identifier: object) -> Route:
    if identifier is None:
        raise invalid("'model' is required", "model")
    if not isinstance(identifier, str) or not identifier:
        raise invalid("'model' must be a non-empty string", "model")
    platform = gateway.settings.platform_account
    route = resolve(current_snapshot(gateway), key.account_id, platform, identifier)
    if route is None:
        await gateway.look_again()
        route = resolve(current_snapshot(gateway), key.account_id, platform, identifier)
    if route is None:
        raise model_not_found()
    return route


def same_route(gateway: Gateway, route: Route) -> Route:
    """The route as it is now; 404 when it is gone."""
    now = current_snapshot(gateway).by_deployed_model.get((route.account_id, route.id))
    if now is not route and (now is None or now.deployment.uid != route.deployment.uid):
        raise model_not_found()
    return now


def no_replica(route: Route, key: KnownKey) -> GatewayError:
    """Why no replica can take the request; the owner is told what the deployment waits for."""
    deployment = route.deployment
    own = key.account_id == deployment.account_id
    if route.state == "DEPLOYING" and route.status_code != "OK" and deployment.ready_replicas:
        reason = f": {route.status_message}" if own and route.status_message else ""
        return GatewayError(
            412, "FAILED_PRECONDITION", f"the model could not be loaded{reason}", param="model"
        )
    name = f"deployment {deployment.name}" if own else "the model's deployment"
    failed = "has failed and " if deployment.state == "FAILED" else ""
    reason = f": {deployment.status_message}" if own and deployment.status_message else ""
    message = f"{name} {failed}has no ready replica for the model{reason}"
    return unavailable("DEPLOYMENT_SCALING_UP", message, retry_after=5)


def other_task(model: Model) -> GatewayError:
    return invalid(f"{model.name} {ANSWERS[model.task]}", "model")


def read_patience(headers: Mapping[str, str], limits: Limits) -> float:
    """Seconds, of the header `x-wait-for-replica`; the gateway's own limit without it."""
    given = headers.get("x-wait-for-replica")
    if given is None:
        return limits.wait_seconds
    if not (given.isascii() and given.isdigit()):
        raise invalid("the header x-wait-for-replica must be a whole number of seconds")
    return min(float(given), limits.wait_seconds)
