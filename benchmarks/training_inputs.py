"""What the training benchmark trains: a random Llama, rows of words, and an object store for both."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import running
from controlplane.config import Settings
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from workers.runtimes.node_settings import UNUSED_BROKER, UNUSED_DATABASE
from workers.training.config import JobSpec

QUICKSTART = Path(__file__).resolve().parents[1] / "quickstart"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
WORDS = (QUICKSTART / "words.txt").read_text().split()


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    services = Services.of(folder)
    store = services.seaweedfs
    with running([store.program(folder / "seaweedfs.log")]):
        settings = Settings(
            database_url=UNUSED_DATABASE,
            redis_url=UNUSED_BROKER,
            s3_endpoint=store.endpoint,
            s3_access_key=store.access_key,
            s3_secret_key=store.secret_key,
            s3_bucket="benchmark",
            data_dir=folder,
        )
        found = ObjectStore.from_settings(settings)
        found.ensure_bucket()
        yield found


def make_model(folder: Path) -> Path:
    """Random weights of some four million parameters, and the quickstart's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir()
    config = LlamaConfig.from_pretrained(QUICKSTART / "model")
    config.update(
        {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8, "num_key_value_heads": 4}
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (QUICKSTART / "model" / name).exists():
            shutil.copyfile(QUICKSTART / "model" / name, folder / name)
    return folder


def make_rows(path: Path, count: int, length: int) -> Path:
    """Questions and answers of about `length` tokens, two to a word."""
    chosen = random.Random(0)

    def words(number: int) -> str:
        return " ".join(chosen.choice(WORDS) for _ in range(number))

    def row() -> dict[str, Any]:
        half = max(1, length // 4)
        asked, answered = (words(chosen.randint(half // 2, half)) for _ in range(2))
        return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}

    path.write_text("".join(json.dumps(row()) + "\n" for _ in range(count)))
    return path


def spec_of(store: ObjectStore, model: Path, rows: Path) -> JobSpec:
    return JobSpec.model_validate(
        {
            "job_uid": "1",
            "job_name": "accounts/hearth/fineTuningJobs/benchmark",
            "day": "2026-01-31",
            "output_prefix": "accounts/hearth/fine-tuning-jobs/1/",
            "base_model": _publish(store, "a1", *sorted(model.iterdir())),
            "datasets": [_publish(store, "b2", rows)],
            "kind": "conversation",
            "epochs": 1,
            "learning_rate": 1e-3,
            "batch_size": 8,
            "micro_batch_size": 4,
            "lora_rank": 8,
            "lora_alpha": 0,
            "cutoff_length": 1024,
        }
    )


def _publish(store: ObjectStore, uid: str, *paths: Path) -> dict[str, Any]:
    prefix = f"accounts/hearth/inputs/{uid}/"
    files = []
    for path in paths:
        store.put_file(prefix + path.name, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append({"name": path.name, "size": path.stat().st_size, "sha256": digest})
    return {"name": f"accounts/hearth/inputs/{uid}", "uid": uid, "prefix": prefix, "files": files}
