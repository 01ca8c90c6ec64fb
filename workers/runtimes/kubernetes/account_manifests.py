"""The Kubernetes objects of an account, as plain documents. Pure: the same in gives the same out.

It has a namespace, whose name is the configured prefix and the account's id:

    Namespace, ResourceQuota, NetworkPolicy, Secret     `account_objects`
"""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from controlplane.node_pools import Cache, NodePools
from workers.runtimes.kubernetes.manifests import (
    ACCOUNT_LABEL,
    ENGINE_PORT,
    STAGER_PORT,
    STORE_ANNOTATION,
    STORE_SECRET,
    Manifest,
    document,
    fingerprint,
    managed,
    namespace_of,
)

LINK_LOCAL = "169.254.0.0/16"
"""Where clouds give a node's credentials to whoever asks."""


def account_objects(pools: NodePools, account_id: str, store: dict[str, str]) -> list[Manifest]:
    """`store` is the environment that reaches the object store, as `object_store_environment` has it."""
    namespace = namespace_of(pools, account_id)
    labels = {**managed(pools), "app.kubernetes.io/part-of": "hearth", ACCOUNT_LABEL: account_id}
    place = _namespace(namespace, labels, pools.cache)
    place["metadata"]["annotations"] = {STORE_ANNOTATION: fingerprint(store)}
    objects = [place, _network_policy(namespace, labels, pools, store)]
    if pools.quota:
        objects.append(document("v1", "ResourceQuota", "account", namespace, labels, {"hard": pools.quota}))
    secret = document("v1", "Secret", STORE_SECRET, namespace, labels)
    data = {key: base64.b64encode(value.encode()).decode() for key, value in store.items()}
    return [*objects, {**secret, "type": "Opaque", "data": data}]


def _namespace(name: str, labels: dict[str, str], cache: Cache) -> Manifest:
    # A folder of the node is more than the profiles allow; all else about the pods fits the strictest.
    level = "privileged" if cache.host_path else "restricted"
    guarded = {**labels, "pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": guarded}}


def _network_policy(
    namespace: str, labels: dict[str, str], pools: NodePools, store: dict[str, str]
) -> Manifest:
    """In: Hearth's own pods, to the engines' ports. Out: names and the object store. Nothing else."""
    address = urlsplit(store["HEARTH_S3_ENDPOINT"])
    store_port = address.port or (443 if address.scheme == "https" else 80)
    platform = {"matchLabels": {"kubernetes.io/metadata.name": pools.platform_namespace}}
    spec = {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [{"namespaceSelector": platform}],
                "ports": [{"protocol": "TCP", "port": port} for port in (ENGINE_PORT, STAGER_PORT)],
            }
        ],
        "egress": [
            {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
            {"ports": [{"protocol": "TCP", "port": store_port}], "to": reach(address.hostname or "")},
        ],
    }
    return document("networking.k8s.io/v1", "NetworkPolicy", "account", namespace, labels, spec)


def reach(host: str) -> list[Manifest]:
    """A host's address. A policy knows no names: for one it is any address but the node's own services."""
    try:
        address = ip_address(host)
    except ValueError:
        return [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}}, {"ipBlock": {"cidr": "::/0"}}]
    return [{"ipBlock": {"cidr": str(ip_network(address))}}]
