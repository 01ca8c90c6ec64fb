"""The Kubernetes runtime: a cluster keeps the replicas of deployments, and Hearth follows what it sees."""

from workers.runtimes.kubernetes.fleets import KubernetesFleets

__all__ = ["KubernetesFleets"]
