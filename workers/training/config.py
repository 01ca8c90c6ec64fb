"""What the trainer is told: the job specification, checked on reading."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from workers.training.errors import TrainingFailure

Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"]

MOST_PROCESSES = 64


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputFile(Strict):
    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: str = ""
    """Empty when it is not known; then only the size is checked."""


class Source(Strict):
    """A model or a dataset, and where its files lie in the object store."""

    name: str
    uid: str
    prefix: str
    files: Annotated[tuple[InputFile, ...], Field(min_length=1)]


class Wandb(Strict):
    """The run that the job logs to. Its key is in the environment: a specification holds no secrets."""

    entity: str = ""
    project: str
    run_id: Annotated[str, Field(min_length=1)]
    base_url: str = "https://api.wandb.ai"
    mode: Literal["online", "offline"] = "online"
    """Offline: a folder that can be sent there later."""


class Preference(Strict):
    """How the better one of two answers is made the likelier one."""

    method: Literal["dpo", "orpo"]
    beta: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of DPO: how strongly the model is held to what it was."""
    odds_weight: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Of ORPO: how much the odds of the two answers count beside the likelihood of the better one."""


class JobSpec(Strict):
    job_uid: str
    job_name: str
    day: Annotated[date, PlainSerializer(date.isoformat)]
    """When the job was made, in UTC: what chat templates take for today, the same in every attempt."""
    output_prefix: Annotated[str, Field(pattern=r"^accounts/[^/]+/fine-tuning-jobs/[^/]+/$")]
    base_model: Source
    warm_start: Source | None = None
    datasets: Annotated[tuple[Source, ...], Field(min_length=1)]
    evaluation_dataset: Source | None = None

    kind: Literal["conversation", "text_completion", "text_classification", "preference"]
    preference: Preference | None = None
    jinja_template: str | None = None
    """None: the base model's own chat template."""
    input_template: str | None = None
    output_template: str | None = None
    """Of a classification these name the fields of the text and of its label."""

    epochs: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    lr_scheduler_type: Scheduler = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    """Rows of one optimizer step, all micro batches together; packs of rows where rows are packed."""
    batch_tokens: Annotated[int, Field(ge=0)] = 0
    """Rows are packed up to so many tokens, and each pack is a micro batch of its own. 0: they are not."""
    micro_batch_size: Annotated[int, Field(ge=0)] = 0
    """Rows that pass through the model at once; 0: chosen by the length of the rows."""
    lora_rank: Annotated[int, Field(ge=1, le=256)]
    lora_alpha: Annotated[int, Field(ge=0, le=1024)]
    """0: twice the rank."""
    lora_target_modules: tuple[str, ...] = ()
    """Empty: all that the engine serves adapted, of those that the base model has."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cutoff_length: Annotated[int, Field(ge=2)]
    quantize_base: bool = False
    """Keep the base weights in four bits (NF4) while training."""
    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] = 1
    """They train together, each on an accelerator of its own where the node has any."""
    divide_base: bool = False
    """Divide the base among the processes even where each of them has room for the whole."""
    evaluation: bool = False
    evaluation_split: Annotated[float, Field(ge=0, lt=1)] = 0.15
    early_stop: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    checkpoint_interval_steps: Annotated[int, Field(ge=0)] = 0
    """0: by time, every `checkpoint_seconds`."""
    checkpoint_seconds: Annotated[float, Field(ge=1)] = 60.0
    sampler_interval_steps: Annotated[int, Field(ge=0)] = 0
    """Keep the adapter as it is after so many steps, again and again, to be made a model of. 0: never."""
    wandb: Wandb | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        talks = self.kind in ("conversation", "preference")
        if not talks and not (self.input_template and self.output_template):
            raise ValueError(f"a {self.kind} job needs input_template and output_template")
        if talks and (self.input_template or self.output_template):
            raise ValueError(f"input_template and output_template do not belong to {self.kind} jobs")
        if (self.kind == "preference") != (self.preference is not None):
            raise ValueError("preference belongs to preference jobs, and each of them needs it")
        texts = 2 if self.preference else 1
        if self.batch_tokens and (
            self.batch_tokens < texts * self.cutoff_length or self.micro_batch_size != 1
        ):
            raise ValueError("batch_tokens must hold cutoff_length, and takes a micro_batch_size of 1")
        if self.divide_base and (self.processes == 1 or self.quantize_base):
            raise ValueError("divide_base needs several processes, and a base that is not in four bits")
        if self.batch_size % self.processes:
            raise ValueError(f"{self.processes} processes cannot share a batch of {self.batch_size}")
        if "lm_head" in self.lora_target_modules:
            raise ValueError("lora_target_modules must not name lm_head: the output layer is not tuned")
        return self

    @property
    def evaluates(self) -> bool:
        return self.evaluation or self.early_stop or self.evaluation_dataset is not None

    @property
    def alpha(self) -> int:
        return self.lora_alpha or 2 * self.lora_rank


def read_spec(path: Path) -> JobSpec:
    """The specification in a file; raises TrainingFailure with the first mistake, or OSError."""
    try:
        return JobSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise TrainingFailure(
            "INVALID_ARGUMENT", "BAD_SPECIFICATION", f"{place}: {message}" if place else message
        ) from None
