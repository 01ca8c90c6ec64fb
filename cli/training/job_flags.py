"""The flags that the newer kinds of fine-tuning jobs have in common, as data."""

from collections.abc import Iterable
from dataclasses import replace

from cli.language.flags import group
from cli.language.options import Flag, Kind

DATASET = Flag("dataset", "dataset", "The dataset's id or name.")
DISPLAY_NAME = Flag("display-name", "displayName", "A name for people.")
START = (
    Flag("base-model", "baseModel", "The base model to start from."),
    Flag("warm-start-from", "warmStartFrom", "A LoRA adapter to go on from, in place of a base model."),
)
OUTPUT_MODEL = Flag("output-model", "outputModel", "The model that comes out; the job's id by default.")
TRAINING = (
    Flag("epochs", "epochs", "Passes over the dataset.", Kind.INTEGER),
    Flag("learning-rate", "learningRate", "The learning rate.", Kind.NUMBER),
    Flag("learning-rate-warmup-steps", "learningRateWarmupSteps", "Steps to reach it.", Kind.INTEGER),
    Flag("max-context-length", "maxContextLength", "The most tokens of a row.", Kind.INTEGER),
    Flag("batch-size", "batchSize", "Tokens of a batch, packed with whole rows.", Kind.INTEGER),
    Flag("batch-size-samples", "batchSizeSamples", "Rows of a batch, instead.", Kind.INTEGER),
    Flag("gradient-accumulation-steps", "gradientAccumulationSteps", "Batches a step.", Kind.INTEGER),
    Flag("lora-rank", "loraRank", "The rank of the adapter; 8 by default.", Kind.INTEGER),
    Flag("optimizer-weight-decay", "optimizerWeightDecay", "The weight decay.", Kind.NUMBER),
    Flag(
        "base-model-weight-precision",
        "baseModelWeightPrecision",
        "NF4 keeps the base in four bits.",
        choices=("BFLOAT16", "NF4"),
    ),
    Flag("accelerator-count", "acceleratorCount", "Accelerators to train on together.", Kind.INTEGER),
    Flag("jinja-template", "jinjaTemplate", "A Jinja template for the chat."),
    Flag(
        "sampler-checkpoint-save-interval-steps",
        "samplerCheckpointSaveIntervalSteps",
        "Keep the adapter after every so many steps, to promote.",
        Kind.INTEGER,
    ),
)
RESERVED = Flag("use-reservation", "useReservation", "Train on reserved capacity.", Kind.SWITCH)
EVALUATION = group(
    "Evaluation",
    Flag("evaluation-dataset", "evaluationDataset", "A dataset to measure the model on."),
    Flag("eval-auto-carveout", "evalAutoCarveout", "Measure it on a part of the dataset.", Kind.SWITCH),
    Flag("early-stop", "earlyStop", "Stop when the evaluation gets no better.", Kind.SWITCH),
)
WANDB = group(
    "Weights & Biases",
    Flag("wandb", "wandbConfig.enabled", "Report there.", Kind.SWITCH),
    Flag("wandb-api-key", "wandbConfig.apiKey", "A key; by default that of WANDB_API_KEY."),
    Flag("wandb-project", "wandbConfig.project", "The project; by default that of WANDB_PROJECT."),
    Flag("wandb-entity", "wandbConfig.entity", "The entity; by default that of WANDB_ENTITY."),
)
BUCKETS = group(
    "Data in buckets",
    Flag("aws-credentials-secret", "awsS3Config.credentialsSecret", "A secret to read S3 with."),
    Flag("aws-iam-role", "awsS3Config.iamRoleArn", "Or a role.", also=("--aws-iam-role-arn",)),
    Flag("azure-credentials-secret", "azureBlobStorageConfig.credentialsSecret", "The same for Azure."),
    Flag(
        "azure-managed-identity-client-id",
        "azureBlobStorageConfig.managedIdentityClientId",
        "Or a managed identity.",
    ),
    Flag("azure-tenant-id", "azureBlobStorageConfig.tenantId", "The identity's tenant."),
)


def within(place: str, flags: Iterable[Flag]) -> tuple[Flag, ...]:
    """The flags, for a message that has these fields under `place`."""
    return tuple(replace(flag, path=f"{place}.{flag.path}") for flag in flags)
