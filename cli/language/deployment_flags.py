"""The flags of deployments: what creating one takes, and what changing one does."""

from cli.language.flags import group, refused
from cli.language.options import Flag, Kind

_POLICY = "autoscalingPolicy"
_NOT_HERE = (
    refused("unused-auto-delete-duration", "the server's HEARTH_UNUSED_DEPLOYMENT_DAYS says it for all"),
)
# What both create and update take.
_FLAGS = (
    Flag("description", "description", "What it is for; fewer than 1000 characters."),
    Flag("display-name", "displayName", "A name for people; fewer than 64 characters."),
    Flag("deployment-shape", "deploymentShape", "A deployment shape to take the settings from."),
    Flag("deployment-template", "deploymentTemplate", "A deployment template."),
    Flag("enable-addons", "enableAddons", "Let LoRA adapters be deployed on it.", Kind.SWITCH),
    Flag("max-peft-batch-size", "maxPeftBatchSize", "Adapters kept on the device.", Kind.INTEGER),
    Flag("enable-session-affinity", "enableSessionAffinity", "Keep a user on one replica.", Kind.SWITCH),
    Flag("expire-time", "expireTime", "When it ends, such as 2030-01-01T00:00:00Z."),
    Flag("max-context-length", "maxContextLength", "The longest context, in tokens.", Kind.INTEGER),
    *group(
        "Hardware",
        Flag("accelerator-count", "acceleratorCount", "GPUs for each replica.", Kind.INTEGER),
        Flag("accelerator-type", "acceleratorType", "Its type, such as H100_80GB.", Kind.ACCELERATOR),
        Flag("world-size", "worldSize", "The older name of --accelerator-count.", Kind.INTEGER),
        Flag("precision", "precision", "The precision to serve in, such as FP16 or FP8."),
        Flag("long-prompt", "autoTune.longPrompt", "Spread prompts over more GPUs.", Kind.SWITCH),
    ),
    *group(
        "Scaling",
        Flag("max-replica-count", "maxReplicaCount", "The most replicas.", Kind.INTEGER),
        Flag("min-replica-count", "minReplicaCount", "The fewest replicas; 0 scales to zero.", Kind.INTEGER),
        Flag("scale-up-window", f"{_POLICY}.scaleUpWindow", "How long until it grows.", Kind.DURATION),
        Flag("scale-down-window", f"{_POLICY}.scaleDownWindow", "Until it shrinks.", Kind.DURATION),
        Flag("scale-to-zero-window", f"{_POLICY}.scaleToZeroWindow", "Idle time before 0.", Kind.DURATION),
        Flag("load-targets", f"{_POLICY}.loadTargets", "Load to scale for: default=0.8.", Kind.PAIRS),
    ),
    *group(
        "Speculative decoding",
        Flag("draft-model", "draftModel", "The draft model."),
        Flag("draft-token-count", "draftTokenCount", "Tokens guessed at a time.", Kind.INTEGER),
        Flag("enable-mtp", "enableMtp", "Multi-token prediction.", Kind.SWITCH),
        Flag("ngram-speculation-length", "ngramSpeculationLength", "Tokens looked back for.", Kind.INTEGER),
    ),
    *group(
        "Direct route",
        Flag(
            "direct-route-type",
            "directRouteType",
            "Such as INTERNET or AWS_PRIVATELINK.",
        ),
        Flag("direct-route-api-keys", "directRouteApiKeys", "Keys for it.", Kind.WORDS),
    ),
    *_NOT_HERE,
)
CREATE = (
    Flag("deployment-id", "?deploymentId", "The id; made up by default.", also=("--deployment",)),
    Flag("validate-only", "?validateOnly", "Check the request; create nothing.", Kind.SWITCH),
    Flag("disable-auto-deploy", "?disableAutoDeploy", "Do not deploy the base model on it.", Kind.SWITCH),
    *_FLAGS,
    *group(
        "Speculative decoding",
        Flag("disable-speculative-decoding", "?disableSpeculativeDecoding", "None of it.", Kind.SWITCH),
    ),
    *group(
        "Hardware",
        Flag("region", "placement.region", "The region to run in."),
        Flag("accept-shapeless-risk", "?acceptShapelessRisk", "No shape is wanted.", Kind.SWITCH),
        Flag("skip-shape-validation", "?skipShapeValidation", "Flags win over the shape.", Kind.SWITCH),
    ),
    refused("cluster-id", "replicas run on the platform's own machines, and nowhere else", also=("-c",)),
)
UPDATE = (
    *_FLAGS,
    *group(
        "Hardware",
        Flag("skip-shape-validation", "?skipShapeValidation", "Flags win over the shape.", Kind.SWITCH),
    ),
    refused("region", "a deployment stays where it is; create another one", Kind.TEXT),
)
