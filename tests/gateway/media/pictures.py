"""Servers of pictures, at private addresses, and a fetcher to which these are public."""

import base64
import struct
import threading

from aiohttp.resolver import ThreadedResolver

from controlplane.signin.addresses import Refused
from gateway.limits import Limits
from gateway.media.fetching import Fetcher
from tests.gateway.serving import until_set

HEADER = struct.pack(">I4sII", 13, b"IHDR", 3, 2) + bytes(9)
PNG = b"\x89PNG\r\n\x1a\n" + HEADER + struct.pack(">I4s", 0, b"IEND")
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


class Pictures:
    """A server of pictures, with what else a hostile one may answer."""

    def __init__(self):
        self.content = PNG
        self.places = {}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = []

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        await until_set(self.may_answer)
        headers, status = [(b"content-type", b"text/html")], 200
        if scope["path"] in self.places:
            headers, status = [(b"location", self.places[scope["path"]].encode())], 302
        if scope["path"] == "/absent":
            status = 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": self.content})


def fetcher(**limits):
    """One to which the servers of the tests are public; all else is as it is."""

    def check(url):
        if not url.startswith("http://127.0.0.1:"):
            raise Refused(f"{url} is not a public address")

    return Fetcher(Limits(image_seconds=limits.pop("image_seconds", 10.0), **limits), ThreadedResolver, check)
