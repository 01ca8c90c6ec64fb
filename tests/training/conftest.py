"""A tiny model made on the spot, and jobs that train it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from workers.runtimes.node_settings import UNUSED_BROKER, UNUSED_DATABASE
from workers.training.config import JobSpec
from workers.training.examples.encoding import Encoder
from workers.training.job import Job
from workers.training.outcome.result import Report
from workers.training.running.progress import ProgressReport
from workers.training.running.stop import StopRequest

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
JOB_PREFIX = "accounts/acme/fine-tuning-jobs/77/"
COLOURS = ["red", "green", "blue", "white", "black", "amber", "pink", "grey"]

PLAIN_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|' + message['role'] + '|>' + (message['content'] or '') + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[AddedToken(token, special=True) for token in (BOS, END, PAD, *ROLES)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [f"the colour of sky {i} is {c}" for i, c in enumerate(COLOURS * 40)], trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


@pytest.fixture(scope="session", autouse=True)
def patient_threads() -> Iterator[None]:
    """As in the trainer's own process: threads wait without spinning. Read when torch is first imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield


@pytest.fixture
def settings(platform_services: Services, tmp_path: Path) -> Settings:
    """The real object store, with a bucket of its own. A trainer knows no database."""
    seaweedfs = platform_services.seaweedfs
    return Settings(
        database_url=UNUSED_DATABASE,
        redis_url=UNUSED_BROKER,
        s3_endpoint=seaweedfs.endpoint,
        s3_access_key=seaweedfs.access_key,
        s3_secret_key=seaweedfs.secret_key,
        s3_bucket=f"training-{uuid.uuid4().hex[:12]}",
        data_dir=tmp_path / "data",
    )


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture
def encoder(tokenizer: Tokenizer) -> Encoder:
    """An encoder of the tiny tokenizer, which stops at <|end|>."""
    end = tokenizer.token_to_id(END)
    return Encoder(SimpleNamespace(backend_tokenizer=tokenizer, eos_token_id=end), {end})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A random Llama of some 50,000 parameters in the usual files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.3,  # Large enough for an adapter to turn the output round.
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(END),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": BOS, "eos_token": END, "pad_token": PAD}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, "chat_template": PLAIN_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], Path]:
    """Writes rows to a file of its own."""
    return lambda rows: write_rows(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def publish(object_store: ObjectStore) -> Callable[..., dict[str, Any]]:
    """Puts files into the object store, as a model or a dataset that a specification can name."""

    def put(uid: str, *paths: Path) -> dict[str, Any]:
        prefix = f"accounts/acme/inputs/{uid}/"
        files = []
        for path in paths:
            object_store.put_file(prefix + path.name, path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files.append({"name": path.name, "size": path.stat().st_size, "sha256": digest})
        return {"name": f"accounts/acme/inputs/{uid}", "uid": uid, "prefix": prefix, "files": files}

    return put


@pytest.fixture
def make_spec(
    publish: Callable[..., dict[str, Any]], tiny_model: Path, tmp_path: Path
) -> Callable[..., JobSpec]:
    """A specification for some rows; whatever is given replaces the defaults."""

    def make(rows: Sequence[dict[str, Any]], **settings: Any) -> JobSpec:
        document = {
            "job_uid": "77",
            "job_name": "accounts/acme/fineTuningJobs/colours",
            "day": "2026-01-31",
            "output_prefix": JOB_PREFIX,
            "base_model": publish("aa", *sorted(tiny_model.iterdir())),
            "datasets": [publish("bb", write_rows(tmp_path / "train.jsonl", rows))],
            "kind": "conversation",
            "epochs": 3,
            "learning_rate": 2e-2,
            "batch_size": 8,
            "lora_rank": 8,
            "lora_alpha": 16,
            "cutoff_length": 128,
            **settings,
        }
        return JobSpec.model_validate(document)

    return make


class Jobs:
    """Runs jobs in this process, as `python -m workers.training` does in its own."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.stop = StopRequest()

    def run(self, spec: JobSpec, wandb_key: str = "") -> tuple[dict[str, Any], Report]:
        """The metrics and the report; raises what the job fails with."""
        from workers.training.recipe import fine_tune

        job = self.job(spec, wandb_key)
        with job.progress:
            return fine_tune(job), job.report

    def job(self, spec: JobSpec, wandb_key: str = "") -> Job:
        """An attempt that is about to begin."""
        progress = ProgressReport(self.store, spec.output_prefix)
        folders = self.folder / "cache", self.folder / "work"
        return Job(spec, self.store, progress, self.stop, Report(), *folders, wandb_key)

    def metrics(self) -> list[dict[str, Any]]:
        lines = self.store.get_bytes(JOB_PREFIX + "metrics.jsonl").splitlines()
        return [json.loads(line) for line in lines]

    def steps(self) -> list[dict[str, Any]]:
        return [line for line in self.metrics() if "loss" in line]

    def evaluations(self) -> list[dict[str, Any]]:
        return [line for line in self.metrics() if "eval_loss" in line]

    def losses(self) -> list[float]:
        return [line["loss"] for line in self.steps()]

    def adapter(self, name: str) -> bytes:
        return self.store.get_bytes(f"{JOB_PREFIX}adapter/{name}")


@pytest.fixture
def jobs(object_store: ObjectStore, tmp_path: Path) -> Jobs:
    return Jobs(object_store, tmp_path)
