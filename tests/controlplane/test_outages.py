"""What callers are told while a part that the API stands on is away."""

import httpx
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from controlplane.app import create_app
from controlplane.errors import Code
from controlplane.rest.responses import database_error


async def ask(settings, path, key=""):
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://hearth", timeout=60) as client,
    ):
        return await client.get(path, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def closed_port(unused_tcp_port):
    return unused_tcp_port


async def test_without_its_database_the_api_says_so_and_nothing_of_its_inside(settings, closed_port):
    settings.database_url = f"postgresql+psycopg://nobody:secret@127.0.0.1:{closed_port}/none"
    answer = await ask(settings, "/v1/accounts", "fw_any")
    assert (answer.status_code, answer.json()["code"]) == (503, 14)
    assert answer.json()["message"].startswith("the database cannot be reached")
    assert "secret" not in answer.text
    assert answer.headers["retry-after"]


async def test_without_its_object_store_the_api_says_so(settings, admin_key, api, closed_port, db):
    await api.post("/v1/accounts/hearth/datasets", json={"datasetId": "d", "dataset": {}})
    settings.s3_endpoint = f"http://127.0.0.1:{closed_port}"
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--b--\r\n'
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://hearth", timeout=60) as client,
    ):
        answer = await client.post(
            "/v1/accounts/hearth/datasets/d:upload",
            content=body,
            headers={
                "Authorization": f"Bearer {admin_key}",
                "Content-Type": "multipart/form-data; boundary=b",
            },
        )
    assert (answer.status_code, answer.json()["code"]) == (503, 14)
    assert answer.json()["message"].startswith("the object store cannot be reached")


def test_what_gave_way_to_another_or_took_too_long_is_no_outage():
    gave_way = OperationalError("UPDATE", {}, psycopg.errors.DeadlockDetected())
    assert database_error(gave_way).code is Code.ABORTED
    slow = OperationalError("SELECT", {}, psycopg.errors.QueryCanceled())
    assert database_error(slow).code is Code.DEADLINE_EXCEEDED
    gone = OperationalError("UPDATE", {}, psycopg.OperationalError("server closed the connection"))
    assert database_error(gone).code is Code.UNAVAILABLE
