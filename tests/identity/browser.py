"""A person with a browser: follows links, fills in the provider's forms, and logs in as whom it is told.

Run as a program it is what `$BROWSER` names: `python browser.py PERSON URL`.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

MOST_PAGES = 15


class Form(HTMLParser):
    """The first form of a page: where it goes, and what stands in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action, self._inside = given.get("action", ""), True
        elif tag == "input" and self._inside and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


def visit(url: str, person: str, *, stop_before: str = "\0") -> httpx.Response | str:
    """The last page, which has no form; or the first address that begins with `stop_before`."""
    with httpx.Client(timeout=20) as client:
        request = client.build_request("GET", url)
        for _ in range(MOST_PAGES):
            if str(request.url).startswith(stop_before):
                return str(request.url)
            page = client.send(request)
            if page.next_request is not None:
                request = page.next_request
                continue
            form = Form(page.text)
            if page.status_code >= 400 or form.action is None:
                return page
            fields = form.fields
            if "login" in fields:
                fields |= {"login": person, "password": "any"}
            request = client.build_request("POST", urljoin(str(page.url), form.action), data=fields)
    raise AssertionError("the provider asks for more and more")


if __name__ == "__main__":
    visit(sys.argv[2], sys.argv[1])
