"""Fleets on Kubernetes: declared by server-side apply, seen through watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from typing import Any

import httpx

from controlplane.config import Settings
from controlplane.node_pools import NodePool, NodePools
from controlplane.regions import ANYWHERE
from controlplane.sizing import DoesNotFit, ModelSizes, first_fit, size_pod
from workers.runtimes.base import (
    AdapterSource,
    Endpoint,
    EngineUnreachable,
    FleetNews,
    FleetObservation,
    FleetRefused,
    FleetSpec,
    ModelSource,
    RuntimeUnavailable,
)
from workers.runtimes.client import EngineClient, prove_adapter
from workers.runtimes.kubernetes.cluster import POD, Document, Refused
from workers.runtimes.kubernetes.manifests import ENGINE_PORT, SPEC_ANNOTATION, STAGER_PORT, Place
from workers.runtimes.kubernetes.observation import EVICTED, replicas_of
from workers.runtimes.kubernetes.pod import SOURCE, WEIGHTS_LOST, addon_key
from workers.runtimes.kubernetes.site import Site
from workers.runtimes.kubernetes.sites import Sites, refusals_pass
from workers.runtimes.kubernetes.view import is_uid
from workers.runtimes.node_cache import StagingError
from workers.runtimes.node_settings import object_store_environment
from workers.runtimes.vllm import ENGINE_SPEC, EngineSpec

LASTING = (400, 422)
"""What the API server answers when trying again changes nothing."""
STAGE_SECONDS = 600.0
CONNECT_SECONDS = 2.0


class KubernetesFleets:
    """Keeps nothing that matters: any worker sees and does the same. `close` ends its watches."""

    def __init__(self, settings: Settings, sites: Sites | None = None) -> None:
        self._sites = sites or Sites.from_settings(settings)
        self._pools = self._sites.pools
        self._store = object_store_environment(settings)

    def declare(self, spec: FleetSpec) -> None:
        """Raises FleetRefused, RuntimeUnavailable."""
        place = self._place(spec)
        site = self._sites.of(place.pool.context)
        try:
            site.declare(spec, place, self._store)
        except Refused as error:
            if error.status in LASTING:
                raise FleetRefused("OBJECTS_REFUSED", f"the cluster refuses it: {error.message}") from error
            raise RuntimeUnavailable(f"the cluster refuses it for now: {error.message}") from error
        if _serves(site, spec):
            self._sites.each(lambda other: other.remove(spec.deployment_uid), besides=place.pool.context)

    def observe(self, spec: FleetSpec) -> FleetObservation:
        """Raises FleetRefused, RuntimeUnavailable."""
        place = self._place(spec)
        seen = self._sites.of(place.pool.context).observe(spec, place, self._store)
        elsewhere, _ = self._sites.each(
            lambda other: other.replicas(spec.deployment_uid), besides=place.pool.context
        )
        replicas = {uid: replica for each in (*elsewhere, seen.replicas) for uid, replica in each.items()}
        return replace(
            seen,
            replicas=replicas,
            settled=seen.settled and not any(elsewhere),
            exists=seen.exists or bool(replicas),
            region=place.pool.region,
        )

    def remains(self, deployment_uid: str) -> FleetObservation:
        """What is left of a fleet that is to go. A cluster that is silent may still have some of it."""
        found, silent = self._sites.each(
            lambda site: (site.replicas(deployment_uid), site.has(deployment_uid))
        )
        replicas = {uid: replica for each, _ in found for uid, replica in each.items()}
        exists = bool(silent) or any(has for _, has in found)
        return FleetObservation(replicas, exists=exists, message="; ".join(silent))

    def remove(self, deployment_uid: str) -> None:
        self._sites.each(lambda site: site.remove(deployment_uid))

    def known(self) -> frozenset[str]:
        found, _ = self._sites.each(lambda site: site.view.groups("Deployment"))
        return frozenset(uid for uids in found for uid in uids if is_uid(uid))

    def take_news(self) -> FleetNews:
        found, _ = self._sites.each(lambda site: site.take_news(), silently=True)
        return reduce(or_, found, FleetNews())

    def note(self, deployment_uid: str, reason: str, message: str, *, warning: bool) -> None:
        def say(site: Site) -> None:
            for deployment in site.view.group("Deployment", deployment_uid):
                site.tell(deployment, reason, message, warning=warning)

        self._sites.each(say)

    def say_serving(self, replica_uid: str, serving: bool) -> None:
        try:
            site, pod = self._pod(replica_uid)
        except EngineUnreachable:  # it went in the meantime
            return
        site.say_serving(pod, serving)

    def clear(self, replica_uid: str) -> None:
        """A pod that was evicted, or whose weights are gone, stays for ever otherwise.

        Any other one is its Deployment's.
        """
        try:
            site, pod = self._pod(replica_uid)
        except EngineUnreachable:
            return
        metadata, failure = pod["metadata"], replicas_of(pod)[replica_uid].failure
        if not failure or failure.reason not in (EVICTED, WEIGHTS_LOST):
            return
        with refusals_pass():
            site.cluster.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])

    def prove_base(self, replica_uid: str) -> None:
        spec, endpoint = self._engine(replica_uid)
        with EngineClient(endpoint.url) as client:
            client.prove(spec.replica.served_name, spec.replica.task)

    def load_adapter(self, replica_uid: str, adapter: AdapterSource) -> None:
        """Raises StagingError, AdapterRefused, EngineUnreachable."""
        _, endpoint = self._engine(replica_uid)
        with EngineClient(endpoint.url) as client:
            if adapter.name not in client.models():
                client.load_adapter(adapter.name, self._bring(endpoint.host, adapter))

    def prove_adapter(self, replica_uid: str, name: str) -> bool:
        spec, endpoint = self._engine(replica_uid)
        with EngineClient(endpoint.url) as client:
            return prove_adapter(client, spec.replica.served_name, name)

    def unload_adapter(self, replica_uid: str, name: str) -> None:
        _, endpoint = self._engine(replica_uid)
        with EngineClient(endpoint.url) as client:
            client.unload_adapter(name)

    def list_adapters(self, replica_uid: str) -> frozenset[str]:
        spec, endpoint = self._engine(replica_uid)
        with EngineClient(endpoint.url) as client:
            return client.models() - {spec.replica.served_name}

    def close(self) -> None:
        self._sites.close()

    def _place(self, spec: FleetSpec) -> Place:
        """The first pool of its regions that the replica fits in, by price."""
        pools = self._pools.pools_for(spec.accelerator_type, spec.regions)
        if not pools:
            raise FleetRefused("NO_NODE_POOL", _no_pool(spec, self._pools))
        size = partial(
            size_pod,
            sizes_of(spec),
            accelerators=spec.accelerator_count,
            precision=spec.engine.precision,
            tokens=spec.engine.max_model_len or 0,
            kv_cache_gib=spec.engine.kv_cache_gib,
            check=spec.check_size,
            long_prompt=spec.engine.long_prompt,
        )
        try:
            return Place(self._pools, *first_fit(pools, size))
        except DoesNotFit as error:
            raise FleetRefused("DOES_NOT_FIT", str(error), code="RESOURCE_EXHAUSTED") from error

    def _pod(self, replica_uid: str) -> tuple[Site, Document]:
        found, silent = self._sites.each(lambda site: (site, site.pod_of(replica_uid)))
        for site, pod in found:
            if pod:
                return site, pod
        if silent:
            raise RuntimeUnavailable("; ".join(silent))
        raise EngineUnreachable(f"replica {replica_uid} is not on a cluster")

    def _engine(self, replica_uid: str) -> tuple[EngineSpec, Endpoint]:
        _, pod = self._pod(replica_uid)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise EngineUnreachable(f"the pod of replica {replica_uid} has no address yet")
        spec = ENGINE_SPEC.validate_json(pod["metadata"]["annotations"][SPEC_ANNOTATION])
        return spec, Endpoint(address, ENGINE_PORT)

    def _bring(self, host: str, adapter: AdapterSource) -> str:
        """Have the pod's stager bring an addon to its cache; where it lies there."""
        headers = {"Authorization": f"Bearer {addon_key(self._store['HEARTH_S3_SECRET_KEY'])}"}
        timeout = httpx.Timeout(STAGE_SECONDS, connect=CONNECT_SECONDS)
        url = f"http://{host}:{STAGER_PORT}/stage"
        try:
            with httpx.Client(timeout=timeout, trust_env=False) as client:
                answer = client.post(url, content=SOURCE.dump_json(adapter.model), headers=headers)
                said = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnreachable(f"the addon cannot be brought to the pod: {error}") from error
        if answer.status_code == httpx.codes.CONFLICT:
            raise StagingError(said["code"], said["reason"], said["message"], said["retryable"])
        if answer.status_code != httpx.codes.OK:
            raise EngineUnreachable(f"the pod's stager answered {answer.status_code}: {said.get('message')}")
        return str(said["path"])


def _no_pool(spec: FleetSpec, pools: NodePools) -> str:
    def shown(pool: NodePool) -> str:
        return f"{pool.accelerator_type} in {pool.region}" if pool.region else pool.accelerator_type

    place = "" if spec.regions == ANYWHERE else f" in {spec.regions}"
    there = ", ".join(sorted({shown(pool) for pool in pools.pools}))
    return f"no node pool has {spec.accelerator_type}{place}; there are: {there}"


def sizes_of(spec: FleetSpec) -> ModelSizes:
    """Of the model, and of the one that guesses for it."""
    draft = spec.engine.draft
    sizes = _sizes(spec.engine.model, spec.model_config)
    return replace(sizes, draft=_sizes(draft, spec.draft_config)) if draft else sizes


def _sizes(model: ModelSource, config: Mapping[str, Any]) -> ModelSizes:
    return ModelSizes.of(sum(file.size for file in model.files), config)


def _serves(site: Site, spec: FleetSpec) -> bool:
    """Whether what runs on another cluster is not needed any more."""
    serving = [each for each in site.replicas(spec.deployment_uid).values() if each.serving]
    return len(serving) >= spec.replicas
