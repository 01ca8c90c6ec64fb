"""The real thing: a file of 2 GB over a connection that is cut three times."""

from __future__ import annotations

import random
import time

import httpx
import pytest

from tests.transfer.conftest import MIB, make_model, sha256_of

SIZE = 2048 * MIB
MOST_MEMORY = 200_000_000


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_two_gigabytes_arrive_whole_over_three_cuts_in_little_memory(
    start, network, server, admin_key, tmp_path, capsys
):
    folder = make_model(tmp_path / "large", SIZE, seed=11)
    size = (folder / "model.safetensors").stat().st_size
    assert size > SIZE
    network.cut_at(up=random.Random(13).sample(range(100 * MIB, 2000 * MIB), 3))
    began = time.monotonic()
    ran = start("create", "model", "large", str(folder)).finish(seconds=1500)
    took = time.monotonic() - began
    assert (ran.code, "State: READY" in ran.out) == (0, True), ran.err
    url = f"{server.url}/v1/accounts/hearth/models/large:getDownloadEndpoint"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {admin_key}"}).json()
    assert answer["filenameToSha256"]["model.safetensors"] == sha256_of(folder / "model.safetensors")
    assert network.cuts == 3
    with capsys.disabled():
        print(
            f"\n{size / 1e9:.2f} GB in {took:.0f} s, {network.up / size:.3f} of it sent, "
            f"{ran.peak_bytes / 1e6:.0f} MB of memory"
        )
    assert network.up <= 1.06 * size
    assert 0 < ran.peak_bytes < MOST_MEMORY
