"""What the gateway knows of the world: an immutable picture of everything that can be routed to."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from controlplane.checks.architectures import GENERATE
from controlplane.checks.tool_calls import PLAIN_TEMPLATE, CallForm

Key = tuple[str, str]
"""(account id, resource id)"""


@dataclass(frozen=True, slots=True)
class Model:
    """An ML model as inference callers see it."""

    account_id: str
    id: str
    kind: str
    public: bool
    create_time: datetime
    context_length: int
    supports_chat: bool
    supports_image_input: bool
    supports_tools: bool
    call_form: CallForm = PLAIN_TEMPLATE
    """How it is shown functions, and writes calls of them."""
    task: str = GENERATE
    """What its engines do, one of `controlplane.checks.architectures`."""
    supports_audio_input: bool = False
    template: str | None = None
    """Its own chat template, where that is not the one that its engines were started with."""
    hub_name: str = ""
    """Its name on the Hugging Face hub, where its owner has said that: `nomic-ai/nomic-embed-text-v1.5`."""
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"accounts/{self.account_id}/models/{self.id}")


@dataclass(frozen=True, slots=True)
class Deployment:
    uid: uuid.UUID
    account_id: str
    id: str
    state: str
    status_message: str
    context_length: int
    """The longest prompt and answer together that its engines take; 0 when unknown."""
    ready_replicas: int
    desired_replicas: int = 1
    most_replicas: int = 1
    guesses_ahead: bool = False
    """Whether its engines guess tokens ahead, which some parameters do not go with."""
    keeps_sessions: bool = False
    """Whether an addon's sessions are kept together, rather than all of its requests."""
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"accounts/{self.account_id}/deployments/{self.id}")


@dataclass(frozen=True, slots=True)
class Target:
    """A ready replica that serves one deployed model."""

    replica_uid: uuid.UUID
    url: str
    engine_name: str
    """The name under which this engine answers for the deployed model."""


@dataclass(frozen=True, slots=True)
class Route:
    """A deployed model, and the replicas that answer for it."""

    account_id: str
    id: str
    state: str
    status_code: str
    status_message: str
    default: bool
    public: bool
    is_base: bool
    create_time: datetime
    model: Model
    deployment: Deployment
    targets: tuple[Target, ...]

    def is_reachable_by(self, account_id: str) -> bool:
        """The owner's, or made public: by itself, or as its owner's own serving of a public model."""
        if account_id == self.account_id or self.public:
            return True
        return self.model.public and self.model.account_id == self.account_id


@dataclass(frozen=True)
class Snapshot:
    """Routes by each name that leads to them; every list is ordered by age."""

    by_model: Mapping[Key, tuple[Route, ...]] = field(default_factory=lambda: MappingProxyType({}))
    by_deployed_model: Mapping[Key, Route] = field(default_factory=lambda: MappingProxyType({}))
    by_deployment: Mapping[Key, tuple[Route, ...]] = field(default_factory=lambda: MappingProxyType({}))
    by_hub_name: Mapping[str, tuple[Route, ...]] = field(default_factory=lambda: MappingProxyType({}))
    resolved: dict[tuple[str, str, str], Route | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What `resolve` has found here, by what it was asked."""

    @staticmethod
    def of(routes: Iterable[Route]) -> Snapshot:
        ordered = sorted(routes, key=lambda route: (route.create_time, route.account_id, route.id))
        by_model: dict[Key, tuple[Route, ...]] = {}
        by_deployment: dict[Key, tuple[Route, ...]] = {}
        by_hub_name: dict[str, tuple[Route, ...]] = {}
        for route in ordered:
            model = (route.model.account_id, route.model.id)
            deployment = (route.deployment.account_id, route.deployment.id)
            by_model[model] = (*by_model.get(model, ()), route)
            by_deployment[deployment] = (*by_deployment.get(deployment, ()), route)
            if name := route.model.hub_name:
                by_hub_name[name] = (*by_hub_name.get(name, ()), route)
        deployed = {(route.account_id, route.id): route for route in ordered}
        return Snapshot(by_model, deployed, by_deployment, by_hub_name)

    def routes(self) -> Iterable[Route]:
        return self.by_deployed_model.values()
