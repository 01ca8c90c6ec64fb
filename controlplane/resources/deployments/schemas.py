from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from controlplane.regions import UNSPECIFIED as REGION_UNSPECIFIED
from controlplane.resources.deployments.autoscaling import AutoscalingPolicy
from controlplane.resources.deployments.engine import ADDON_SLOTS, DRAFT_TOKENS
from controlplane.resources.deployments.enums import (
    MOST_GUESSES,
    AcceleratorType,
    BucketType,
    DirectRouteType,
    Precision,
)
from controlplane.resources.deployments.placement import Placement
from controlplane.resources.deployments.states import DELETED, STATES, Replica
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.tables import DeploymentRow
from controlplane.rest.schema import ApiModel, OneOf, Status, Timestamp, not_returned, output_only

MAX_REPLICAS = 1000

MOST_ADDON_SLOTS = 32
"""An engine holds as many addons in memory, and those on the device are of them."""

NO_DIRECT_ROUTE = "every request goes through the gateway"
NO_HOT_LOAD = "hot loading is not available"
NO_VERSIONS = "models have no versions"

NgramLength = Annotated[
    int,
    Field(
        ge=0,
        le=100,
        description="How many of the last tokens are looked for earlier in the prompt and the answer; what "
        "followed them there is guessed to follow again. 0 guesses nothing. Answers stay as likely as they "
        "were, and come faster where they repeat what is there. Requests with `min_p`, `logit_bias`, "
        "`typical_p` or `mirostat_target` are refused where tokens are guessed.",
    ),
]
DraftTokens = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_GUESSES,
        description=f"How many tokens are guessed at a time; {DRAFT_TOKENS} when unset. "
        "Only with draftModel or ngramSpeculationLength. A new deployment with a draftModel takes the base "
        "model's defaultDraftTokenCount when unset.",
    ),
]
DraftModel = Annotated[
    str,
    Field(
        description="A smaller READY base model that guesses tokens ahead for the base model, which checks "
        "them: its full name, or an own id. It has as many tokens in its vocabulary and reads only text. "
        "Excludes ngramSpeculationLength; the same requests are refused. A new deployment takes the base "
        "model's defaultDraftModel when unset, unless `disableSpeculativeDecoding`.",
    ),
]
AddonSlots = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_ADDON_SLOTS,
        description="How many addons stay on the device at a time, which is how many the requests that are "
        f"answered together may be for; {ADDON_SLOTS} when unset. Only with enableAddons. The engine takes "
        "the room for all of them as it starts.",
    ),
]
SessionAffinity = Annotated[
    bool,
    Field(
        description="Requests of one session (with the same `x-session-affinity`, `prompt_cache_key` or "
        "`user`) stay on one replica also where they are for an addon, all of whose requests go together "
        "otherwise. Requests to the base do so anyway."
    ),
]
AnnotationKey = Annotated[str, StringConstraints(min_length=1, max_length=63)]
AnnotationValue = Annotated[str, StringConstraints(max_length=1000)]


class ReplicaStats(ApiModel):
    """How many replicas are at which stage."""

    pending_scheduling_replica_count: int = 0
    downloading_model_replica_count: int = 0
    initializing_replica_count: int = 0
    ready_replica_count: int = 0
    revocable_replica_count: int = Field(default=0, description="Always 0: there is no revocable capacity.")
    partial_replica_count: float = Field(
        default=0, description="Always 0: an engine serves as a whole or not at all."
    )

    @property
    def total(self) -> int:
        return (
            self.pending_scheduling_replica_count
            + self.downloading_model_replica_count
            + self.initializing_replica_count
            + self.ready_replica_count
        )


class AutoTune(ApiModel):
    long_prompt: bool = Field(
        default=False,
        description="Prompts are spread over two GPUs or more, and read in larger steps. Without "
        "acceleratorCount a replica gets twice as many GPUs as it would need.",
    )


class Deployment(ApiModel):
    unsupported: ClassVar[dict[str, str]] = {
        "expire_time": "deployments do not expire",
        "max_with_revocable_replica_count": "there is no revocable capacity",
        "enable_mtp": "models are served without heads that guess ahead; set ngramSpeculationLength to guess "
        "from the text itself",
        "direct_route_api_keys": NO_DIRECT_ROUTE,
        "direct_route_type": NO_DIRECT_ROUTE,
        "deployment_template": "deployment templates are not available; set the fields themselves",
        "enable_hot_load": NO_HOT_LOAD,
        "hot_load_bucket_type": NO_HOT_LOAD,
        "hot_load_bucket_url": NO_HOT_LOAD,
        "hot_load_trainer_job": NO_HOT_LOAD,
        "hot_load_transition_type": NO_HOT_LOAD,
        "enable_hot_reload_latest_addon": "addons are never merged; set enableAddons to serve them unmerged",
        "active_model_version": NO_VERSIONS,
        "target_model_version": NO_VERSIONS,
        "pricing_plan_id": "there is no billing",
    }

    name: str = output_only("")
    display_name: Annotated[str, Field(max_length=63)] = ""
    description: Annotated[str, Field(max_length=999)] = ""
    annotations: Annotated[dict[AnnotationKey, AnnotationValue], Field(max_length=64)] = Field(
        default_factory=dict
    )
    create_time: Timestamp | None = output_only()
    update_time: Timestamp | None = output_only()
    expire_time: Timestamp | None = None
    delete_time: Timestamp | None = output_only()
    purge_time: Timestamp | None = output_only()
    state: Annotated[str, OneOf(*STATES)] = output_only(STATES[0])
    status: Status | None = output_only()
    base_model: str = Field(
        default="",
        description="A READY base model: its full name, or an own id. The shape's when unset.",
    )
    min_replica_count: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 0
    max_replica_count: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = Field(
        default=None, description="max(minReplicaCount, 1) when unset; 0 keeps the deployment scaled to zero."
    )
    max_with_revocable_replica_count: int = 0
    desired_replica_count: int = output_only(
        0,
        description="max(minReplicaCount, 1) to begin with, 0 when maxReplicaCount is 0. The autoscaler "
        "moves it with the load, and `:scale` sets it.",
    )
    replica_count: int = output_only(0)
    replica_stats: ReplicaStats | None = output_only()
    autoscaling_policy: AutoscalingPolicy | None = None
    accelerator_count: Annotated[int, Field(ge=0, le=1024)] = 0
    accelerator_type: AcceleratorType = "ACCELERATOR_TYPE_UNSPECIFIED"
    precision: Precision = "PRECISION_UNSPECIFIED"
    cluster: str = output_only("")
    region: str = output_only(
        REGION_UNSPECIFIED,
        description="Where its replicas were placed last; unspecified before that, and where regions have no "
        "names.",
    )
    placement: Placement | None = Field(
        default=None,
        description="Where its replicas may run; anywhere when unset. It cannot be changed. On one machine "
        "there are no regions to choose from.",
    )
    max_context_length: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    enable_addons: bool = False
    num_peft_device_cached: int = output_only(
        0, description="How many addons stay on the device at a time; 0 without enableAddons."
    )
    max_peft_batch_size: AddonSlots = 0
    enable_hot_reload_latest_addon: bool = False
    draft_model: DraftModel = ""
    draft_token_count: DraftTokens = 0
    ngram_speculation_length: NgramLength = 0
    enable_mtp: bool = False
    enable_session_affinity: SessionAffinity = False
    direct_route_api_keys: list[str] = Field(default_factory=list)
    direct_route_type: DirectRouteType = "DIRECT_ROUTE_TYPE_UNSPECIFIED"
    direct_route_handle: str = output_only("")
    deployment_template: str = ""
    deployment_shape: str = Field(
        default="",
        description="A deployment shape or a version of one, by its name; or `default`, and the platform "
        "chooses. Fields that are left unset are the shape's; the answer names the version.",
    )
    auto_tune: AutoTune | None = None
    disable_deployment_size_validation: bool = Field(
        default=False,
        description="On a cluster acceleratorCount is believed even if the model cannot fit; on one machine "
        "it has no effect, as sizes are not validated there.",
    )
    enable_hot_load: bool = False
    hot_load_bucket_type: BucketType = "BUCKET_TYPE_UNSPECIFIED"
    hot_load_bucket_url: str = ""
    hot_load_trainer_job: str = ""
    active_model_version: str = ""
    target_model_version: str = ""
    pricing_plan_id: str = ""

    hot_load_transition_type: str = Field(default="", exclude=True)
    created_by: Any = not_returned()
    world_size: Any = not_returned()
    generator_count: Any = not_returned()
    disaggregated_prefill_count: Any = not_returned()
    disaggregated_prefill_world_size: Any = not_returned()
    max_batch_size: Any = not_returned()
    kv_cache_memory_pct: Any = not_returned()
    image_tag: Any = not_returned()
    disable_accounting: Any = not_returned()
    extra_args: Any = not_returned()
    extra_values: Any = not_returned()
    engine: Any = not_returned()
    for_training: Any = not_returned()
    workload: Any = not_returned()
    spot: Any = not_returned()
    preemptible: Any = not_returned()


class ScaleDeploymentRequest(ApiModel):
    replica_count: Annotated[int, Field(ge=0, le=MAX_REPLICAS)]


class DeploymentMetrics(ApiModel):
    metrics: dict[str, float] = Field(
        default_factory=dict,
        description="By name, over the time range. REPLICA_COUNT is that of now; LATENCY is the mean time to "
        "a whole answer, in seconds. What the platform does not measure, or cannot tell without requests, "
        "is not there.",
    )


class TerminationMessage(ApiModel):
    message: str = Field(default="", description="Empty when no replica that is still known has failed.")


def replica_stats(counts: dict[str, int]) -> ReplicaStats:
    """Replica states and how many there are of each, in the API's words."""
    return ReplicaStats(
        pending_scheduling_replica_count=counts.get(Replica.PENDING, 0),
        downloading_model_replica_count=counts.get(Replica.STARTING, 0),
        initializing_replica_count=counts.get(Replica.LOADING, 0),
        ready_replica_count=counts.get(Replica.READY, 0),
    )


def deployment_message(row: DeploymentRow, base: ModelRow, counts: dict[str, int]) -> Deployment:
    """A deployment as the API shows it; `counts` are its replicas by state."""
    stats = replica_stats(counts)
    return Deployment(
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        annotations=row.annotations,
        create_time=row.create_time,
        update_time=row.update_time,
        delete_time=row.delete_time,
        purge_time=row.purge_time,
        state=row.state,
        status=Status.of(row),
        base_model=base.name,
        autoscaling_policy=AutoscalingPolicy.of(row.autoscaling_policy),
        min_replica_count=row.min_replica_count,
        max_replica_count=row.max_replica_count,
        # A deleted one wants none, and keeps how many it wanted for when it is undeleted.
        desired_replica_count=0 if row.state == DELETED else row.desired_replica_count,
        replica_count=stats.total,
        replica_stats=stats,
        accelerator_count=row.accelerator_count,
        accelerator_type=row.accelerator_type,
        precision=row.precision,
        max_context_length=row.max_context_length,
        draft_token_count=row.draft_token_count,
        draft_model=row.draft_model,
        ngram_speculation_length=row.ngram_speculation_length,
        enable_addons=row.enable_addons,
        num_peft_device_cached=(row.num_lora_device_cached or ADDON_SLOTS) if row.enable_addons else 0,
        max_peft_batch_size=row.num_lora_device_cached,
        auto_tune=AutoTune(long_prompt=True) if row.long_prompt else None,
        disable_deployment_size_validation=row.disable_deployment_size_validation,
        enable_session_affinity=row.enable_session_affinity,
        deployment_shape=row.deployment_shape,
        region=row.region or REGION_UNSPECIFIED,
        placement=Placement(**row.placement) if row.placement else None,
    )
