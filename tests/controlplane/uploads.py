"""Uploading models and datasets as clients do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

MODELS = "/v1/accounts/hearth/models"
DATASETS = "/v1/accounts/hearth/datasets"
MODEL_FILES = {
    path.name: path.read_bytes()
    for path in sorted((Path(__file__).resolve().parents[2] / "quickstart" / "model").iterdir())
    if path.is_file()
}


async def create_model(api: httpx.AsyncClient, model_id: str = "ember", **model: Any) -> Any:
    body = {"modelId": model_id, "model": {"kind": "HF_BASE_MODEL", **model}}
    answer = await api.post(MODELS, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def put_files(api: httpx.AsyncClient, path: str, files: dict[str, bytes]) -> dict[str, str]:
    """Registers files, puts them to their signed URLs, and returns the URLs."""
    sizes = {name: len(content) for name, content in files.items()}
    registered = await api.post(f"{path}:getUploadEndpoint", json={"filenameToSize": sizes})
    assert registered.status_code == 200, registered.text
    urls: dict[str, str] = registered.json()["filenameToSignedUrls"]
    async with httpx.AsyncClient() as plain:
        for name, url in urls.items():
            assert (await plain.put(url, content=files[name])).status_code == 200
    return urls


async def ready_model(api: httpx.AsyncClient, model_id: str = "ember", **model: Any) -> Any:
    await create_model(api, model_id, **model)
    await put_files(api, f"{MODELS}/{model_id}", MODEL_FILES)
    checked = await api.get(f"{MODELS}/{model_id}:validateUpload")
    assert checked.status_code == 200, checked.text
    return (await api.get(f"{MODELS}/{model_id}")).json()


def chat_row(text: str) -> str:
    said = [{"role": "user", "content": text}, {"role": "assistant", "content": "Hello"}]
    return json.dumps({"messages": said})


def chat_rows(count: int) -> bytes:
    return "".join(f"{chat_row(f'Hi {number}')}\n" for number in range(count)).encode()


async def ready_dataset(api: httpx.AsyncClient, dataset_id: str, files: dict[str, bytes]) -> Any:
    made = await api.post(DATASETS, json={"datasetId": dataset_id, "dataset": {"userUploaded": {}}})
    assert made.status_code == 200, made.text
    await put_files(api, f"{DATASETS}/{dataset_id}", files)
    checked = await api.post(f"{DATASETS}/{dataset_id}:validateUpload", json={})
    assert checked.status_code == 200, checked.text
    return (await api.get(f"{DATASETS}/{dataset_id}")).json()
