"""Images and audio in requests: what reaches the engine, and what is fetched from nowhere.

The engine is a fake: what is looked at is what it is sent. Servers of the tests stand at private addresses,
so that a fetcher of the tests is told which of them to take for public.
"""

import asyncio
import base64
import json
import socket
import struct
import threading

import httpx
import openai
import pytest

from controlplane.signin.addresses import PublicResolver
from gateway.errors import GatewayError
from gateway.limits import Limits
from gateway.media.fetching import Fetcher
from gateway.media.types import audio_type, image_type
from tests.gateway.media.pictures import DATA, PNG, Pictures, fetcher
from tests.gateway.serving import wait_until

WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


def fetch(by, *urls):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    held = []
    asyncio.run(by.inline(parts, held.append))
    return [part["image_url"]["url"] for part in parts], held


def test_an_image_is_put_in_the_place_of_its_url_with_the_type_that_it_has(pictures):
    found, held = fetch(fetcher(), f"{pictures.url}/a", f"{pictures.url}/b", DATA)
    assert found == [DATA] * 3
    assert held == [len(PNG) * 4 // 3] * 2
    assert sorted(pictures.asked) == ["/a", "/b"]


def test_a_redirect_is_followed_and_checked(pictures):
    pictures.places = {"/a": "/b", "/in": "http://169.254.169.254/latest", "/round": "/round"}
    assert fetch(fetcher(), f"{pictures.url}/a")[0] == [DATA]
    with pytest.raises(GatewayError, match=r"169\.254\.169\.254/latest is not a public address"):
        fetch(fetcher(), f"{pictures.url}/in")
    with pytest.raises(GatewayError, match="redirected more than 3 times"):
        fetch(fetcher(), f"{pictures.url}/round")


def test_what_is_too_large_too_slow_absent_or_no_image_is_refused(pictures):
    with pytest.raises(GatewayError, match="larger than 4 bytes"):
        fetch(fetcher(image_bytes=4), f"{pictures.url}/a")
    with pytest.raises(GatewayError, match="the answer is 404"):
        fetch(fetcher(), f"{pictures.url}/absent")
    pictures.content = b"<html>"
    with pytest.raises(GatewayError, match="no image of a known type") as refused:
        fetch(fetcher(), f"{pictures.url}/a")
    assert (refused.value.status, refused.value.param) == (400, "image_url")
    pictures.may_answer.clear()
    with pytest.raises(GatewayError, match=r"no answer within 0\.1 seconds"):
        fetch(fetcher(image_seconds=0.1), f"{pictures.url}/a")


PRIVATE = (
    "http://127.0.0.1/a",
    "http://127.1/a",
    "http://2130706433/a",
    "http://0x7f.1/a",
    "http://localhost/a",
    "http://10.0.0.1/a",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/a",
    "http://[::ffff:127.0.0.1]/a",
    "http://[fe80::1]/a",
    "http://0.0.0.0/a",
    "http://user:word@example.org/a",
    "ftp://example.org/a",
    "file:///etc/passwd",
    "http:///a",
    "nothing",
)


@pytest.mark.parametrize("url", PRIVATE)
def test_nothing_is_fetched_from_here_or_by_other_means(url):
    with pytest.raises(GatewayError, match="cannot be fetched") as refused:
        fetch(Fetcher(Limits(image_seconds=10.0)), url)
    assert "no answer within" not in refused.value.message


def test_a_name_is_connected_to_where_its_first_answer_leads(pictures):
    """A second answer, which may lead anywhere, is not asked for."""
    port = int(pictures.url.rpartition(":")[2])
    answers = iter(("127.0.0.1", "10.0.0.1"))
    given = []

    class Rebinding(PublicResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            given.append(next(answers))
            return await self._inner.resolve(given[-1], port, family)

    by = Fetcher(Limits(image_seconds=10.0), Rebinding)
    assert fetch(by, f"http://images.example:{port}/a")[0] == [DATA]
    assert given == ["127.0.0.1"]


async def test_slow_pictures_of_one_account_hold_nobody_elses_up(pictures, serve):
    pictures.may_answer.clear()
    by, quick = fetcher(), serve(Pictures())

    def get(url, count, account):
        parts = [{"type": "image_url", "image_url": {"url": f"{url}/{each}"}} for each in range(count)]
        return by.inline(parts, lambda size: None, account)

    slow = [asyncio.create_task(get(pictures.url, 30, "a")) for _ in range(3)]
    await asyncio.to_thread(wait_until, lambda: len(pictures.asked) >= 32)
    await get(quick, 3, "b")
    assert not any(each.done() for each in slow)
    pictures.may_answer.set()
    await asyncio.gather(*slow)


async def test_names_that_are_not_found_out_keep_no_other_work_waiting(monkeypatch):
    known = threading.Event()

    def lookup(*_):
        known.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    parts = [{"type": "image_url", "image_url": {"url": f"http://{each}.example"}} for each in range(40)]
    by = Fetcher(Limits(image_seconds=0.2))
    try:
        with pytest.raises(GatewayError, match="no answer within"):
            await by.inline(parts, lambda size: None)
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: 1) == 1
    finally:
        known.set()
        by.close()


def test_types_are_told_by_their_first_bytes():
    beginnings = {
        b"\xff\xd8\xff\xe0": "image/jpeg",
        b"GIF89a": "image/gif",
        b"BM": "image/bmp",
        b"II*\x00": "image/tiff",
        b"P6 1 1": "image/x-portable-pixmap",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ": "image/webp",
        b"<svg": None,
        b"": None,
    }
    assert {content: image_type(content) for content in beginnings} == beginnings
    assert [audio_type(each) for each in (WAV, b"ID3\x04", b"\xff\xfb\x90", b"OggS", b"")] == [
        "wav",
        "mp3",
        "mp3",
        None,
        None,
    ]


@pytest.fixture
def seeing(served):
    """`eyes` takes images and audio."""
    base = served.world.add_base("acme", "eyes", images=True, supports_audio_input=True)
    deployment = served.world.add_deployment("acme", "eyes", base)
    served.world.add_replica(deployment, served.engine_url, "base-uid")
    served.world.load("acme", "eyes-1", base, deployment)
    served.running.until_routed(lambda gateway: ("acme", "eyes") in gateway.snapshot.by_model)
    return served


def shown(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


def image(url):
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def test_an_image_reaches_the_engine_as_bytes(seeing, pictures):
    seeing.running.gateway.images = fetcher()
    seeing.openai.chat.completions.create(
        model="eyes", messages=shown(image(f"{pictures.url}/a"), image(DATA))
    )
    [body] = seeing.engine.bodies
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url", "image_url"]
    assert [part["image_url"] for part in body["messages"][0]["content"][1:]] == [{"url": DATA}] * 2
    assert seeing.running.gateway.admission.bytes == 0


def test_audio_reaches_the_engine(seeing):
    sound = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    seeing.openai.chat.completions.create(
        model="eyes", messages=shown({"type": "input_audio", "input_audio": sound})
    )
    assert seeing.engine.bodies[0]["messages"][0]["content"][1] == {
        "type": "input_audio",
        "input_audio": sound,
    }


def test_messages_and_responses_show_images_too(seeing):
    source = {"type": "base64", "media_type": "image/png", "data": DATA.partition(",")[2]}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    asked = {"model": "eyes", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
    assert seeing.http.post("/v1/messages", json=asked).status_code == 200
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": DATA}]}]
    seeing.openai.responses.create(model="eyes", input=items)
    for body in seeing.engine.bodies:
        assert DATA in json.dumps(body["messages"])


def test_functions_are_told_of_beside_an_image(seeing):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    seeing.openai.chat.completions.create(model="eyes", messages=shown(image(DATA)), tools=[tool])
    told = json.dumps(seeing.engine.bodies[0]["messages"])
    assert DATA in told
    assert "look" in told


def test_a_model_that_sees_nothing_says_so(served):
    with pytest.raises(openai.BadRequestError, match="accounts/acme/models/llama takes no images"):
        served.openai.chat.completions.create(model="llama", messages=shown(image(DATA)))
    sound = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    with pytest.raises(openai.BadRequestError, match="takes no audio"):
        served.openai.chat.completions.create(
            model="llama", messages=shown({"type": "input_audio", "input_audio": sound})
        )
    assert served.engine.requests == []


def test_the_gateway_itself_fetches_from_no_private_address(seeing, pictures):
    answer = seeing.http.post(
        "/v1/chat/completions", json={"model": "eyes", "messages": shown(image(f"{pictures.url}/a"))}
    )
    assert answer.status_code == 400
    assert "127.0.0.1 is not a public address" in answer.json()["error"]["message"]
    assert pictures.asked == seeing.engine.requests == []


def test_pictures_that_unfold_to_more_than_an_engine_holds_are_refused(seeing, pictures):
    large = PNG.replace(struct.pack(">II", 3, 2), struct.pack(">II", 7000, 7000))
    sent = f"data:image/png;base64,{base64.b64encode(large).decode()}"
    seeing.running.gateway.images, pictures.content = fetcher(), large

    def ask(*urls):
        asked = {"model": "eyes", "messages": shown(*map(image, urls))}
        return seeing.http.post("/v1/chat/completions", json=asked)

    assert ask(sent, sent, f"{pictures.url}/a").status_code == 200
    for urls in ([sent] * 4, [sent] * 3 + [f"{pictures.url}/a"]):
        answer = ask(*urls)
        assert answer.status_code == 400
        assert "196,000,000 pixels together; at most 150,000,000" in answer.json()["error"]["message"]
    pictures.content = PNG.replace(struct.pack(">II", 3, 2), struct.pack(">II", 70_000, 70_000))
    assert "it has 70,000 × 70,000 pixels" in ask(f"{pictures.url}/a").json()["error"]["message"]
    assert "pixels" not in seeing.engine.bodies[0]["messages"][0]["content"][1]
    assert len(seeing.engine.bodies) == 1


WRONG = [
    (image("data:image/png,x"), "must be data:…;base64,… or the URL of an image"),
    (image("data:image/png;base64,%%"), "is not valid base64"),
    (image("data:image/png;base64,eHh4"), "holds no image of a known type"),
    ({"type": "image_url"}, "'messages[0].content[1].image_url' must be an object"),
    ({"type": "image_url", "image_url": {"url": DATA, "detail": "most"}}, "one of auto, low, high"),
    ({"type": "video_url", "video_url": {"url": "x"}}, "video_url input"),
    ({"type": "input_audio", "input_audio": {"data": "eHh4", "format": "wav"}}, "holds no wav"),
    ({"type": "input_audio", "input_audio": {"data": "eHh4", "format": "ogg"}}, "one of wav, mp3"),
    ({"type": "hologram"}, "must be one of text, image_url, input_audio, video_url, not 'hologram'"),
]


@pytest.mark.parametrize(("part", "message"), WRONG)
def test_what_is_wrong_is_refused_by_name(seeing, part, message):
    answer = seeing.http.post("/v1/chat/completions", json={"model": "eyes", "messages": shown(part)})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_there_are_no_more_images_than_documented(seeing):
    for count, status in ((30, 200), (31, 400)):
        asked = {"model": "eyes", "messages": shown(*[image(DATA)] * count)}
        answer = seeing.http.post("/v1/chat/completions", json=asked, timeout=httpx.Timeout(30))
        assert answer.status_code == status
    assert "30 images at most" in answer.json()["error"]["message"]


def test_only_what_a_user_or_a_tool_says_shows_images(seeing):
    messages = [{"role": "system", "content": [image(DATA)]}, *shown()]
    answer = seeing.http.post("/v1/chat/completions", json={"model": "eyes", "messages": messages})
    assert "must be text in a message of the role system" in answer.json()["error"]["message"]
