"""The Kubernetes runtime: a cluster keeps replicas and trainers, and Hearth follows what it sees."""

from workers.runtimes.kubernetes.fleets import KubernetesFleets
from workers.runtimes.kubernetes.sites import Sites
from workers.runtimes.kubernetes.trainers import KubernetesTrainers

__all__ = ["KubernetesFleets", "KubernetesTrainers", "Sites"]
