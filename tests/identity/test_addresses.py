"""Where the server may be sent to: nowhere but the Internet."""

import gzip
import ipaddress
import socket

import pytest

from controlplane.signin import outbound
from controlplane.signin.addresses import PublicResolver, Refused, check_url, is_public
from controlplane.signin.outbound import NoAnswer, fetch
from tests.gateway.serving import serving

PUBLIC = ("1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::1")
PRIVATE = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
    "fe80::1",
    "fec0::1",
    "fd00::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_asked(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_may_not(address):
    assert not is_public(ipaddress.ip_address(address))


def test_a_trusted_issuer_may_be_anywhere_but_speaks_http():
    check_url("http://127.0.0.1:8080/x", trusted=True)
    for url in ("file:///etc/passwd", "gopher://127.0.0.1", "http://a:b@127.0.0.1", "http://[::1", "//x"):
        with pytest.raises(Refused):
            check_url(url, trusted=True)


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff12\uff17.0.0.1",  # digits of full width
        "\u246027.0.0.1",
        "127\u30020\u30020\u30021",  # ideographic full stops
        "127.0.0.1\u200b",
        "idp.example\x1b[2J",
        "idp example",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("trusted", [False, True])
def test_an_address_is_not_hidden_behind_odd_characters(host, trusted):
    with pytest.raises(Refused, match="plain ASCII"):
        check_url(f"https://{host}/", trusted=trusted)


@pytest.mark.parametrize("host", ["2130706433", "127.1", "127.0.0.1.", "0", "0177.0.0.1", "127.0.0.01"])
def test_an_address_in_an_odd_form_is_refused_before_anything_connects(host):
    with pytest.raises(Refused, match="usual form"):
        check_url(f"https://{host}/", trusted=False)


@pytest.mark.parametrize("host", ["a..b", ".", "x" * 64 + ".example", "x" * 300, "[v1.a]", "%31%32%37.0.0.1"])
async def test_a_host_that_is_no_name_gives_no_answer(host):
    with pytest.raises(NoAnswer):
        await fetch(f"https://{host}:1/", trusted=False)


async def test_a_name_that_leads_to_one_private_address_is_not_followed(monkeypatch):
    def lookup(host, port, **_):
        found = {"good.example": ["1.1.1.1"], "evil.example": ["1.1.1.1", "127.0.0.1"]}[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    resolver = PublicResolver()
    monkeypatch.setattr(resolver._inner._loop, "getaddrinfo", as_coroutine(lookup))
    assert [one["host"] for one in await resolver.resolve("good.example", 443)] == ["1.1.1.1"]
    with pytest.raises(Refused, match=r"127\.0\.0\.1"):
        await resolver.resolve("evil.example", 443)


def as_coroutine(function):
    async def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


async def test_an_untrusted_name_of_this_machine_is_refused_before_it_is_asked():
    with pytest.raises(NoAnswer, match="not a public address"):
        await fetch("https://localhost:1/", trusted=False)


@pytest.fixture(scope="module")
def odd_provider():
    """A server that answers in ways that no provider should."""

    async def app(scope, receive, send):
        path = scope["path"]
        status, headers, bodies = 200, [(b"content-type", b"application/json")], [b"{}"]
        if path == "/redirect":
            status, headers, bodies = 302, [*headers, (b"location", b"/")], [b'{"moved": true}']
        elif path == "/large":
            bodies = [b" " * 65536] * 32
        elif path == "/bomb":
            headers, bodies = [*headers, (b"content-encoding", b"gzip")], [gzip.compress(b" " * 2**26)]
        elif path == "/deep":
            bodies = [b"[" * 100_000]
        elif path == "/html":
            status, bodies = 502, [b"<html>"]
        elif path == "/list":
            bodies = [b"[1]"]
        elif path == "/slow":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with serving(app) as url:
        yield url


async def test_a_redirect_is_not_followed(odd_provider):
    answer = await fetch(f"{odd_provider}/redirect", trusted=True)
    assert (answer.status, answer.body) == (302, {"moved": True})


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/large", "too large"),
        ("/bomb", "too large"),
        ("/deep", "not a JSON object"),
        ("/html", "answered 502"),
        ("/list", "not a JSON object"),
        ("/slow", "no answer within"),
    ],
)
async def test_an_answer_is_bounded_in_size_time_and_kind(odd_provider, monkeypatch, path, why):
    if path == "/slow":
        monkeypatch.setattr(outbound, "SECONDS", 0.1)
    with pytest.raises(NoAnswer, match=why):
        await fetch(odd_provider + path, trusted=True)
