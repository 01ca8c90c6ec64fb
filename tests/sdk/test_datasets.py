"""Datasets through the published package: every method, both clients, shards, and what goes wrong."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import fireworks
import httpx
import pytest
from fireworks import AsyncFireworks, Fireworks
from fireworks.lib.dataset_upload import count_dataset_examples, upload_dataset_shards

from controlplane.db import Database
from controlplane.resources.datasets import multipart
from controlplane.resources.tables import DatasetRow
from tests.controlplane.uploads import chat_rows

pytestmark = pytest.mark.usefixtures("uploads_worker")

ROWS = chat_rows(3)


def add_datasets(db: Database, count: int) -> None:
    with db.session() as session:
        session.add_all(
            DatasetRow(
                account_id="hearth", id=f"d-{number:03}", example_count=number, format="CHAT", state="READY"
            )
            for number in range(count)
        )


def put(url: str, content: bytes) -> None:
    httpx.put(url, content=content).raise_for_status()


def test_a_datasets_life(client: Fireworks) -> None:
    datasets = client.datasets
    made = datasets.create(
        dataset_id="tickets", dataset={"user_uploaded": {}, "display_name": "Tickets", "example_count": "3"}
    )
    assert (made.name, made.state, made.example_count) == (
        "accounts/hearth/datasets/tickets",
        "UPLOADING",
        "3",
    )
    sent = datasets.upload("tickets", file=("train.jsonl", ROWS))
    assert (sent.id, sent.object, sent.filename, sent.bytes) == (
        made.name,
        "file",
        "train.jsonl",
        len(ROWS),
    )
    found = datasets.get("tickets")
    assert (found.state, found.format, found.example_count) == ("READY", "CHAT", "3")
    assert datasets.update("tickets", display_name="All tickets").display_name == "All tickets"
    urls = datasets.get_download_endpoint("tickets").filename_to_signed_urls
    assert urls is not None
    assert [httpx.get(url).content for url in urls.values()] == [ROWS]
    assert [dataset.name for dataset in datasets.list()] == [made.name]
    assert datasets.delete("tickets") == {}
    with pytest.raises(fireworks.NotFoundError):
        datasets.get("tickets")


async def test_a_datasets_life_without_blocking(async_client: AsyncFireworks) -> None:
    datasets = async_client.datasets
    made = await datasets.create(dataset_id="tickets", dataset={"user_uploaded": {}})
    upload = await datasets.get_upload_endpoint("tickets", filename_to_size={"a.jsonl": str(len(ROWS))})
    assert upload.filename_to_signed_urls is not None
    put(upload.filename_to_signed_urls["a.jsonl"], ROWS)
    assert await datasets.validate_upload("tickets", body={}) == {}
    assert (await datasets.get("tickets", read_mask="state")).state == "READY"
    assert (await datasets.update("tickets", display_name="Tickets")).display_name == "Tickets"
    urls = (await datasets.get_download_endpoint("tickets", download_lineage=True)).filename_to_signed_urls
    assert urls is not None
    assert urls.keys() == {"tickets/a.jsonl"}
    await datasets.create(dataset_id="copy", dataset={}, source_dataset_id="tickets")
    await datasets.create(dataset_id="small", dataset={"user_uploaded": {}})
    assert (await datasets.upload("small", file=("b.jsonl", ROWS))).bytes == len(ROWS)
    names = [dataset.name async for dataset in datasets.list()]
    assert names == [f"accounts/hearth/datasets/{name}" for name in ("copy", "small", "tickets")]
    while (await datasets.get("copy")).state != "READY":
        assert time.time() < made.create_time.timestamp() + 120
    assert await datasets.delete("tickets") == {}


@pytest.mark.usefixtures("https_store")
def test_several_shards_are_one_dataset(client: Fireworks, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"part-{number}.jsonl").write_bytes(ROWS)
    count = count_dataset_examples(str(folder))
    client.datasets.create(dataset_id="tickets", dataset={"user_uploaded": {}, "example_count": str(count)})
    upload_dataset_shards(client, "tickets", str(folder))
    found = client.datasets.get("tickets")
    assert (found.state, found.example_count) == ("READY", "9")
    urls = client.datasets.get_download_endpoint("tickets").filename_to_signed_urls
    assert urls is not None
    assert urls.keys() == {"part-1.jsonl", "part-2.jsonl", "part-3.jsonl"}


def test_five_hundred_datasets_come_page_by_page(client: Fireworks, db: Database) -> None:
    add_datasets(db, 500)
    names = [dataset.name for dataset in client.datasets.list(page_size=200)]
    assert names == [f"accounts/hearth/datasets/d-{number:03}" for number in range(500)]


async def test_datasets_are_filtered_and_ordered(async_client: AsyncFireworks, db: Database) -> None:
    add_datasets(db, 500)
    chosen = async_client.datasets.list(
        filter="example_count >= 100 AND example_count < 400", order_by="example_count desc", page_size=120
    )
    counts = [dataset.example_count async for dataset in chosen]
    assert counts == [str(number) for number in reversed(range(100, 400))]


def test_every_mistake_has_its_own_exception(
    client: Fireworks, rival_client: Fireworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = client.datasets
    datasets.create(dataset_id="tickets", dataset={"user_uploaded": {}})
    with pytest.raises(fireworks.ConflictError):
        datasets.create(dataset_id="tickets", dataset={"user_uploaded": {}})
    with pytest.raises(fireworks.BadRequestError, match="line 2") as bad:
        datasets.upload("tickets", file=("train.jsonl", ROWS.splitlines()[0] + b"\n{\n"))
    report = bad.value.body["details"][0]  # type: ignore[index]
    assert report["badRows"][0]["line"] == 2
    with pytest.raises(fireworks.BadRequestError, match="externalUrl"):
        datasets.update("tickets", external_url="gs://a/b.jsonl")
    with pytest.raises(fireworks.NotFoundError):
        rival_client.datasets.get("tickets", account_id="hearth")
    with pytest.raises(fireworks.AuthenticationError):
        client.with_options(api_key="fw_not-a-key").datasets.list()
    monkeypatch.setattr(multipart, "UPLOAD_PLACES", threading.Semaphore(0))
    with pytest.raises(fireworks.RateLimitError) as full:
        datasets.upload("tickets", file=("train.jsonl", ROWS))
    assert full.value.response.headers["retry-after"]


def test_a_role_that_may_only_look_is_refused(client: Fireworks, viewer_client: Fireworks) -> None:
    client.datasets.create(dataset_id="tickets", dataset={"user_uploaded": {}})
    assert viewer_client.datasets.get("tickets").state == "UPLOADING"
    with pytest.raises(fireworks.PermissionDeniedError):
        viewer_client.datasets.create(dataset_id="mine", dataset={})
    with pytest.raises(fireworks.PermissionDeniedError):
        viewer_client.datasets.delete("tickets")
