"""What a command line finds: an account of its own on a running server, files in a home folder, resources."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from controlplane.bootstrap import create_key, ensure_account, ensure_user
from controlplane.db import Database
from controlplane.resources.tables import ModelRow, ReservationRow
from controlplane.storage import ObjectStore
from tests.gateway.serving import wait_until
from tests.validation.crafted import (
    ADAPTER_CONFIG,
    CONFIG,
    TEMPLATE,
    adapter_tensors,
    base_tensors,
    safetensors,
)

BASE_ID = "llama-v3p1-8b-instruct"
VOCABULARY = {"model": {"type": "BPE", "vocab": {chr(97 + i): i for i in range(10)}, "merges": []}}
BASE_FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": safetensors(base_tensors()),
    "tokenizer.json": json.dumps(VOCABULARY).encode(),
    "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE, "bos_token": "<s>"}).encode(),
}
ADAPTER_FILES = {
    "adapter_config.json": json.dumps(ADAPTER_CONFIG).encode(),
    "adapter_model.safetensors": safetensors(adapter_tensors()),
}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "preferred_output": [{"role": "assistant", "content": "Hello"}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}
TEXT = {"question": "Which colour has the sky?", "answer": "Blue"}
SETTINGS = f"""\
dataset: my-dataset
base_model: accounts/fireworks/models/{BASE_ID}
conversation: {{}}
job_id: from-file
"""
DEPLOYMENT = """\
base_model: my-base
description: From the file
display_name: From the file too
"""
COPIED = ("kind", "state", "context_length", "supports_tools")
VALUES = {
    "ADDON_ID": "my-addon",
    "BASE_ID": BASE_ID,
    "DATASET_ID": "my-dataset",
    "DEPLOYMENT_ID": "my-deployment",
    "FOLDER": "downloads",
    "JOB_ID": "my-fine-tuning-job",
    "JOB_IN_FILE": "from-file",
    "MODEL": f"model {BASE_ID}",
    "MODEL_ID": "my-base",
    "REST": f"--base-model accounts/fireworks/models/{BASE_ID} --dataset my-dataset --kind conversation",
    "USER_ID": "bob-08bb29",
}
"""What the placeholders stand for; ACCOUNT and API_KEY are each world's own."""


def rows(row: Mapping[str, Any], count: int = 20) -> bytes:
    return f"{json.dumps(row)}\n".encode() * count


def _newest(resources: list[dict[str, Any]]) -> dict[str, Any]:
    return max(resources, key=lambda resource: resource["createTime"], default={})


@dataclass
class World:
    """One account, its admin's key, and what was made there."""

    db: Database
    http: httpx.Client
    account: str
    key: str
    home: Path
    store: ObjectStore | None = None
    """None where nothing is put there but through the API."""

    @classmethod
    def of(
        cls, db: Database, http: httpx.Client, account: str, home: Path, store: ObjectStore | None = None
    ) -> World:
        with db.session() as session:
            ensure_account(session, account, f"admin@{account}.example")
            admin = ensure_user(session, account, "admin", f"admin@{account}.example", "admin")
            key = create_key(session, admin, "first")
        return cls(db, http, account, key, home, store)

    @property
    def names(self) -> dict[str, str]:
        """What the placeholders stand for before anything is there."""
        return {**VALUES, "ACCOUNT": self.account, "API_KEY": self.key}

    def values(self) -> dict[str, str]:
        """What they stand for now."""
        loaded, keys = self.list("deployedModels"), self.list("apiKeys")
        made = {"DEPLOYED_MODEL_ID": _newest(loaded).get("name", "").rpartition("/")[2]}
        return {**self.names, **made, "API_KEY_ID": _newest(keys).get("keyId", "")}

    def give(self, what: str) -> None:
        """Makes what an entry says is there: `model m`, `addon a of m`, `deployment d of m`."""
        for pattern, make in GIVEN.items():
            if found := re.fullmatch(pattern, what):
                make(self, *found.groups())
                return
        raise AssertionError(f"nobody knows how to make {what!r}")

    def write(self, path: str, files: Mapping[str, bytes]) -> None:
        (self.home / path).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (self.home / path / name).write_bytes(content)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        path = f"/v1/accounts/{self.account}/{path}"
        return self.http.request(method, path, json=body, params=query, headers=headers)

    def call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        answer = self.ask(method, path, body, **query)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
        made: dict[str, Any] = answer.json()
        return made

    def list(self, collection: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", collection)[collection.rpartition("/")[2]]
        return found

    def status(self, path: str) -> int:
        return self.ask("GET", path).status_code

    def upload(self, path: str, files: Mapping[str, bytes], check: str) -> None:
        sizes = {name: len(content) for name, content in files.items()}
        urls = self.call("POST", f"{path}:getUploadEndpoint", {"filenameToSize": sizes})
        for name, url in urls["filenameToSignedUrls"].items():
            assert self.http.put(url, content=files[name]).status_code == 200
        self.call(check, f"{path}:validateUpload", {} if check == "POST" else None)

    def upload_model(self, id: str, files: Mapping[str, bytes], **fields: Any) -> None:
        self.call("POST", "models", {"modelId": id, "model": {"kind": "HF_BASE_MODEL", **fields}})
        self.upload(f"models/{id}", files, "GET")

    def add_model(self, id: str, public: bool = False) -> None:
        """A model such as the upload of the platform's made; an upload takes longer than most lines."""
        assert self.store is not None
        with self.db.session() as session:
            like = session.scalars(select(ModelRow).where(ModelRow.id == BASE_ID)).one()
            copied = (*COPIED, "files", "facts", "conversation_config")
            values = {name: getattr(like, name) for name in copied}
            row = ModelRow(account_id=self.account, id=id, public=public, **values)
            session.add(row)
            session.flush()
            prefix = row.prefix
        for name, content in BASE_FILES.items():
            self.store.put_bytes(prefix + name, content)

    def add_addon(self, id: str, base: str) -> None:
        details = {"baseModel": f"accounts/{self.account}/models/{base}", "r": 4, "targetModules": ["q_proj"]}
        model = {"kind": "HF_PEFT_ADDON", "peftDetails": details}
        self.call("POST", "models", {"modelId": id, "model": model})
        self.upload(f"models/{id}", ADAPTER_FILES, "GET")

    def add_dataset(self, id: str, content: bytes) -> None:
        self.call("POST", "datasets", {"datasetId": id, "dataset": {"userUploaded": {}}})
        self.upload(f"datasets/{id}", {"rows.jsonl": content}, "POST")

    def add_deployment(self, id: str, base: str, **fields: Any) -> None:
        body = {"baseModel": f"accounts/{self.account}/models/{base}", **fields}
        self.call("POST", "deployments", body, deploymentId=id)

    def deploy(self, model: str, deployment: str) -> None:
        home = f"accounts/{self.account}"
        body = {"model": f"{home}/models/{model}", "deployment": f"{home}/deployments/{deployment}"}
        self.call("POST", "deployedModels", body)

    def add_copy(self, id: str, source: str) -> None:
        """A dataset that the server has made of another one."""
        dataset = {"transformed": {"sourceDatasetId": source}}
        self.call("POST", "datasets", {"datasetId": id, "sourceDatasetId": source, "dataset": dataset})
        wait_until(lambda: self.call("GET", f"datasets/{id}")["state"] == "READY")

    def add_job(self, id: str) -> None:
        self.add_dataset("my-dataset", rows(CHAT))
        base = f"accounts/fireworks/models/{BASE_ID}"
        body = {"dataset": "my-dataset", "baseModel": base, "conversation": {}}
        self.call("POST", "fineTuningJobs", body, fineTuningJobId=id)

    def add_supervised_job(self, id: str) -> None:
        self.add_dataset("my-dataset", rows(CHAT))
        home, base = f"accounts/{self.account}", f"accounts/fireworks/models/{BASE_ID}"
        body = {"dataset": f"{home}/datasets/my-dataset", "baseModel": base}
        self.call("POST", "supervisedFineTuningJobs", body, supervisedFineTuningJobId=id)

    def add_preference_job(self, id: str) -> None:
        self.add_dataset("my-pairs", rows(PAIR))
        home, base = f"accounts/{self.account}", f"accounts/fireworks/models/{BASE_ID}"
        body = {"dataset": f"{home}/datasets/my-pairs", "trainingConfig": {"baseModel": base}}
        self.call("POST", "dpoJobs", body, dpoJobId=id)

    def add_service_account(self, id: str) -> None:
        self.call("POST", "users", {"serviceAccount": True, "role": "user"}, userId=id)

    def add_key(self, name: str) -> None:
        self.call("POST", "users/admin/apiKeys", {"apiKey": {"displayName": name}})

    def add_secret(self, id: str) -> None:
        self.call(
            "POST", "secrets", {"name": f"accounts/{self.account}/secrets/{id}", "keyName": id, "value": "x"}
        )

    def add_unfinished_model(self, id: str) -> None:
        self.call("POST", "models", {"modelId": id, "model": {"kind": "HF_BASE_MODEL"}})

    def add_user(self, id: str, role: str) -> None:
        self.call("POST", "users", {"email": f"{id}@example.com", "role": role}, userId=id)

    def add_reservation(self, id: str) -> None:
        today = datetime.now(UTC)
        row = ReservationRow(
            account_id=self.account,
            id=id,
            accelerator_type="NVIDIA_H100_80GB",
            reserved_count=8,
            start_time=today - timedelta(days=1),
            end_time=today + timedelta(days=1),
        )
        with self.db.session() as session:
            session.add(row)


GIVEN: dict[str, Callable[..., None]] = {
    r"model (\S+)": lambda world, id: world.add_model(id),
    r"public model (\S+)": lambda world, id: world.add_model(id, public=True),
    r"addon (\S+) of (\S+)": lambda world, id, base: world.add_addon(id, base),
    r"dataset (\S+)": lambda world, id: world.add_dataset(id, rows(CHAT)),
    r"pairs (\S+)": lambda world, id: world.add_dataset(id, rows(PAIR)),
    r"texts (\S+)": lambda world, id: world.add_dataset(id, rows(TEXT)),
    r"deployment (\S+) of (\S+)": lambda world, id, base: world.add_deployment(id, base),
    r"wide deployment (\S+) of (\S+)": lambda world, id, base: world.add_deployment(
        id, base, maxReplicaCount=3
    ),
    r"addon deployment (\S+) of (\S+)": lambda world, id, base: world.add_deployment(
        id, base, enableAddons=True
    ),
    r"deployed (\S+) on (\S+)": lambda world, model, deployment: world.deploy(model, deployment),
    r"job (\S+)": lambda world, id: world.add_job(id),
    r"user (\S+) (\S+)": lambda world, id, role: world.add_user(id, role),
    r"reservation (\S+)": lambda world, id: world.add_reservation(id),
    r"copy (\S+) of (\S+)": lambda world, id, source: world.add_copy(id, source),
    r"supervised job (\S+)": lambda world, id: world.add_supervised_job(id),
    r"preference job (\S+)": lambda world, id: world.add_preference_job(id),
    r"service account (\S+)": lambda world, id: world.add_service_account(id),
    r"key (\S+)": lambda world, name: world.add_key(name),
    r"secret file": lambda world: world.write(".", {"secret.txt": b"xyz\n"}),
    r"secret (\S+)": lambda world, id: world.add_secret(id),
    r"unfinished model (\S+)": lambda world, id: world.add_unfinished_model(id),
    r"deployment file": lambda world: world.write(".", {"deployment.yaml": DEPLOYMENT.encode()}),
    r"checkpoint": lambda world: world.write("path/to/checkpoint", BASE_FILES),
}


def furnish(world: World) -> None:
    """The files that the documents name."""
    world.write("path/to/files", BASE_FILES)
    world.write("path/to/addon", ADAPTER_FILES)
    world.write("path/to", {"dataset.jsonl": rows(CHAT), "settings.yaml": SETTINGS.encode()})
    world.write(".", {"settings.yaml": SETTINGS.encode()})
