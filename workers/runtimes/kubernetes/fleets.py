"""Fleets on Kubernetes: declared by server-side apply, seen through watches."""

from __future__ import annotations

import threading

import httpx

from controlplane.config import Settings
from workers.runtimes.base import (
    AdapterSource,
    Endpoint,
    EngineUnreachable,
    FleetObservation,
    FleetRefused,
    FleetSpec,
    ReplicaObservation,
    RuntimeUnavailable,
)
from workers.runtimes.client import EngineClient, prove_adapter
from workers.runtimes.kubernetes.cluster import POD, Cluster, Document, Refused
from workers.runtimes.kubernetes.manifests import ENGINE_PORT, SPEC_ANNOTATION, STAGER_PORT, Place
from workers.runtimes.kubernetes.pod import SOURCE, addon_key
from workers.runtimes.kubernetes.site import Site
from workers.runtimes.kubernetes.sizing import DoesNotFit, ModelSizes, size_pod
from workers.runtimes.node_cache import StagingError
from workers.runtimes.node_settings import object_store_environment
from workers.runtimes.vllm import ENGINE_SPEC, EngineSpec

LASTING = (400, 422)
"""What the API server answers when trying again changes nothing."""
STAGE_SECONDS = 600.0
CONNECT_SECONDS = 2.0


class KubernetesFleets:
    """Keeps nothing that matters: any worker sees and does the same. `close` ends its watches."""

    def __init__(self, settings: Settings) -> None:
        if settings.node_pools is None:
            raise ValueError("HEARTH_NODE_POOLS is not set")
        self._pools = settings.node_pools
        self._store = object_store_environment(settings)
        self._sites: dict[str, Site] = {}
        self._lock = threading.Lock()

    def declare(self, spec: FleetSpec) -> None:
        """Raises FleetRefused, RuntimeUnavailable."""
        place = self._place(spec)
        site = self._site(place.pool.context)
        try:
            site.declare(spec, place, self._store)
        except Refused as error:
            if error.status in LASTING:
                raise FleetRefused("OBJECTS_REFUSED", f"the cluster refuses it: {error.message}") from error
            raise RuntimeUnavailable(f"the cluster refuses it for now: {error.message}") from error
        for other in self._all():
            if other is not site:
                other.remove(spec.deployment_uid)

    def observe(self, spec: FleetSpec) -> FleetObservation:
        """Raises FleetRefused, RuntimeUnavailable."""
        place = self._place(spec)
        seen = self._site(place.pool.context).observe(spec, place, self._store)
        others = [other for other in self._all() if other.context != place.pool.context]
        elsewhere = [other.replicas(spec.deployment_uid) for other in others]
        replicas = {uid: replica for each in (*elsewhere, seen.replicas) for uid, replica in each.items()}
        settled = seen.settled and not any(elsewhere)
        return FleetObservation(replicas, settled, seen.exists or bool(replicas), seen.reason, seen.message)

    def remains(self, deployment_uid: str) -> FleetObservation:
        """What is left of a fleet that is to go."""
        replicas: dict[str, ReplicaObservation] = {}
        for site in self._all():
            replicas |= site.replicas(deployment_uid)
        return FleetObservation(replicas, exists=any(site.has(deployment_uid) for site in self._all()))

    def remove(self, deployment_uid: str) -> None:
        for site in self._all():
            site.remove(deployment_uid)

    def known(self) -> frozenset[str]:
        return frozenset(uid for site in self._all() for uid in site.view.groups("Deployment"))

    def note(self, deployment_uid: str, reason: str, message: str, *, warning: bool) -> None:
        for site in self._all():
            for deployment in site.view.group("Deployment", deployment_uid):
                site.tell(deployment, reason, message, warning=warning)

    def say_serving(self, replica_uid: str, serving: bool) -> None:
        try:
            site, pod = self._pod(replica_uid)
        except EngineUnreachable:  # it went in the meantime
            return
        site.say_serving(pod, serving)

    def clear(self, replica_uid: str) -> None:
        """An evicted pod stays for ever otherwise; any other one is its Deployment's."""
        try:
            site, pod = self._pod(replica_uid)
        except EngineUnreachable:
            return
        metadata = pod["metadata"]
        if (pod.get("status") or {}).get("phase") == "Failed":
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
        for site in self._sites.values():
            site.close()

    def _place(self, spec: FleetSpec) -> Place:
        """The first pool that the replica fits in, by price."""
        pools = self._pools.pools_for(spec.accelerator_type)
        if not pools:
            kinds = ", ".join(sorted({pool.accelerator_type for pool in self._pools.pools}))
            said = f"no node pool has {spec.accelerator_type}; there are: {kinds}"
            raise FleetRefused("NO_NODE_POOL", said)
        weights = sum(file.size for file in spec.engine.model.files)
        sizes = ModelSizes.of(weights, spec.model_config)
        refusals = []
        for pool in pools:
            try:
                size = size_pod(
                    sizes,
                    pool,
                    accelerators=spec.accelerator_count,
                    precision=spec.engine.precision,
                    tokens=spec.engine.max_model_len or 0,
                    kv_cache_gib=spec.engine.kv_cache_gib,
                    check=spec.check_size,
                )
                return Place(self._pools, pool, size)
            except DoesNotFit as error:
                refusals.append(str(error))
        raise FleetRefused("DOES_NOT_FIT", refusals[0], code="RESOURCE_EXHAUSTED")

    def _site(self, context: str) -> Site:
        with self._lock:
            if context not in self._sites:
                self._sites[context] = Site(context, Cluster.of_context(context))
            return self._sites[context]

    def _all(self) -> list[Site]:
        return [self._site(context) for context in sorted({pool.context for pool in self._pools.pools})]

    def _pod(self, replica_uid: str) -> tuple[Site, Document]:
        for site in self._all():
            if pod := site.pod_of(replica_uid):
                return site, pod
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
