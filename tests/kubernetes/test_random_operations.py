"""Whatever is done to deployments in whatever order, by users and by hand, nothing is left or made twice.

HEARTH_RANDOM_OPERATIONS says how many things are done, HEARTH_RANDOM_SEED which.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from controlplane.resources.tables import DeploymentRow
from tests.kubernetes.road import Road
from tests.kubernetes.story import Kubectl, Story
from workers.context import WorkerContext
from workers.reconcile.deployments import reconcile_deployment
from workers.runtimes.kubernetes import KubernetesFleets
from workers.runtimes.kubernetes.cluster import DEPLOYMENT, KINDS, POD, Cluster

pytestmark = pytest.mark.kubernetes

Deploy = Callable[..., Story]

OPERATIONS = int(os.environ.get("HEARTH_RANDOM_OPERATIONS", "50"))
SEED = int(os.environ.get("HEARTH_RANDOM_SEED", "7"))
DEPLOYMENTS = 3
REQUESTS_AN_OPERATION = 8
"""Each can take away a deployment's objects, all of which are then made again."""
ONE_FLEET = {"Deployment": 1, "Pod": 1, "Service": 1, "ServiceAccount": 1, "PodDisruptionBudget": 1}


@dataclass
class Fuzz:
    """Deployments, those that are leaving, and two workers who look at them at the same time."""

    deploy: Deploy
    cluster: Cluster
    road: Road
    workers: tuple[WorkerContext, WorkerContext]
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    stories: list[Story] = field(default_factory=list)
    leaving: list[Story] = field(default_factory=list)
    made: int = 0

    def one(self) -> Story:
        return self.dice.choice(self.stories)

    def make(self) -> None:
        self.made += 1
        self.stories.append(self.deploy(f"d{self.made}"))

    def scale(self) -> None:
        self.one().change(state="UPDATING", desired_replica_count=self.dice.randint(0, 3))

    def update(self) -> None:
        self.one().update(max_context_length=self.dice.choice((256, 512, 1024)))

    def delete(self) -> None:
        """A user deletes one and makes another one."""
        story = self.one()
        self.stories.remove(story)
        story.change(state="DELETING")
        self.leaving.append(story)
        self.make()

    def take_away(self) -> None:
        """Somebody with kubectl deletes an object."""
        story, kinds = self.one(), (DEPLOYMENT, *(KINDS[name] for name in ("Service", "ServiceAccount")))
        kind = self.dice.choice((*kinds, self.cluster.kind("PodDisruptionBudget")))
        self.cluster.delete(kind, story.namespace, story.name())

    def take_a_pod(self) -> None:
        for pod in self.pods(self.one())[:1]:
            self.cluster.delete(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def take_what_all_share(self) -> None:
        self.cluster.delete(KINDS["NetworkPolicy"], self.one().namespace, "account")

    def be_away(self) -> None:
        """The API server is gone for the next round, and comes back."""
        self.road.cut()
        self.one().round()
        self.road.mend()

    def pods(self, story: Story) -> list[dict[str, object]]:
        return list(self.cluster.list(POD, {"labelSelector": story.selector[1]}).get("items") or [])

    def look(self) -> None:
        for story in (self.one(), *self.leaving[:1]):
            self.look_at(story)
        self.leaving = [story for story in self.leaving if story.row().state != "DELETED"]

    def look_at(self, story: Story) -> None:
        """Both workers at once: the lease lets one in."""
        story.change(next_reconcile_at=story.row().create_time)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda worker: reconcile_deployment(worker, story.uid), self.workers))


@pytest.fixture
def fuzz(
    deploy: Deploy, cluster: Cluster, road: Road, context: WorkerContext, fleets: KubernetesFleets
) -> Iterator[Fuzz]:
    second = KubernetesFleets(context.settings)
    yield Fuzz(deploy, cluster, road, (context, replace(context, fleets=second)))
    second.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often Hearth has asked the API server, by what for; the tests' own requests are others'."""
    asked: Counter[str] = Counter()
    send = Cluster._send

    def count(self: Cluster, method: str, path: str, query: dict[str, str], *rest: object) -> object:
        if self._client.user_agent == "hearth" and "watch" not in query:
            asked[method] += 1
        return send(self, method, path, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Cluster, "_send", count)
    return asked


@pytest.mark.timeout(3600)
def test_nothing_is_left_over_or_made_twice(fuzz: Fuzz, kubectl: Kubectl, asked: Counter[str]) -> None:
    for _ in range(DEPLOYMENTS):
        fuzz.make()
    acts = (
        *(fuzz.scale, fuzz.scale, fuzz.update, fuzz.delete, fuzz.take_away, fuzz.take_away),
        *(fuzz.take_a_pod, fuzz.take_what_all_share, fuzz.be_away, fuzz.look, fuzz.look),
    )
    for _ in range(OPERATIONS):
        fuzz.dice.choice(acts)()
        fuzz.look()
    print(f"{OPERATIONS} operations, {fuzz.made} deployments made, requests: {dict(asked)}")
    assert asked.total() < REQUESTS_AN_OPERATION * OPERATIONS
    every_gpu_is_accounted_for(fuzz, kubectl)
    a_settled_fleet_is_quiet(fuzz, asked)
    and_nothing_stays(fuzz, kubectl)


def every_gpu_is_accounted_for(fuzz: Fuzz, kubectl: Kubectl) -> None:
    for story in fuzz.leaving:
        story.until(lambda row: row.state == "DELETED")
    for story in fuzz.stories:
        story.change(state="UPDATING", desired_replica_count=1)
    for story in fuzz.stories:
        has_one_of_each(fuzz, story)
    namespace = fuzz.stories[0].namespace
    fuzz.stories[0].until(lambda row: gpus_used(kubectl, namespace) == DEPLOYMENTS)
    found = Counter(each["kind"] for each in kubectl.get("deployments,services,pods", namespace))
    assert found == dict.fromkeys(("Deployment", "Service", "Pod"), DEPLOYMENTS)


def has_one_of_each(fuzz: Fuzz, story: Story) -> None:
    """The others are looked at too: they may have to give back GPUs first."""

    def is_so(row: DeploymentRow) -> bool:
        for other in fuzz.stories:
            fuzz.look_at(other)
        states = [state for state in story.states() if state != "FAILED"]
        return (row.state, states) == ("READY", ["READY"]) and objects_of(story) == ONE_FLEET

    story.until(is_so)


def a_settled_fleet_is_quiet(fuzz: Fuzz, asked: Counter[str]) -> None:
    for story in fuzz.stories:
        story.round()
    asked.clear()
    for story in fuzz.stories:
        story.round()
    assert not asked


def and_nothing_stays(fuzz: Fuzz, kubectl: Kubectl) -> None:
    for story in fuzz.stories:
        story.change(state="DELETING")
    for story in fuzz.stories:
        leaves_nothing(story)
    namespace = fuzz.stories[0].namespace
    fuzz.stories[0].until(lambda row: gpus_used(kubectl, namespace) == 0)


def leaves_nothing(story: Story) -> None:
    story.until(lambda row: row.state == "DELETED" and story.objects() == [])
    assert story.replicas() == []


def objects_of(story: Story) -> Counter[str]:
    counted = Counter(story.objects())
    counted.pop("ReplicaSet", None)  # earlier ones are kept, empty, as Deployments do
    return counted


def gpus_used(kubectl: Kubectl, namespace: str) -> int:
    (quota,) = kubectl.get("resourcequota", namespace)
    return int(quota["status"]["used"]["requests.nvidia.com/gpu"])
