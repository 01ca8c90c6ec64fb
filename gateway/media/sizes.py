"""How large a picture says that it is, in its first bytes: nothing of it is decoded to find that out.

A picture of a few kilobytes may unfold to gigabytes. Only what the size stands in is read, of each format in
a bounded number of steps; where a format may say it several times, the largest counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from struct import error as NotThere
from struct import unpack_from

Size = tuple[int, int]
"""Width and height in pixels."""

MOST_PIXELS = 50_000_000
"""Of one picture: an engine unfolds it to three bytes for each."""
MOST_PIXELS_TOGETHER = 150_000_000
"""Of all pictures of a request."""
MOST_STEPS = 1000
"""Parts of a picture that are gone through; more than these before its size has none."""
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_NO_PART = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})
JPEG_PIXELS_FOLLOW = 0xDA
TIFF_WIDTH, TIFF_HEIGHT, TIFF_SHORT = 256, 257, 3
PPM = re.compile(rb"P[36](?:\s|#[^\n]{0,1000}\n){1,100}(\d{1,9})(?:\s|#[^\n]{0,1000}\n){1,100}(\d{1,9})\s")


def pixels_of(content: bytes, kind: str) -> int:
    """Of an image of this MIME type; ValueError, which reads on after "it", for more than engines get."""
    size = image_size(content, kind)
    if size is None:
        raise ValueError("does not say how large it is as it should")
    width, height = size
    if width * height > MOST_PIXELS:
        raise ValueError(f"has {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are taken")
    return width * height


def image_size(content: bytes, kind: str) -> Size | None:
    """Of an image of this MIME type; None where it does not say so as it should."""
    try:
        sizes = list(READERS[kind](content))
    except NotThere:
        return None
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _png(content: bytes) -> Iterator[Size]:
    at = 8
    for _ in range(MOST_STEPS):
        length, name = unpack_from(">I4s", content, at)
        if name == b"IHDR":
            yield unpack_from(">II", content, at + 8)
        if name in (b"IDAT", b"IEND"):
            return
        at += 12 + length
    raise NotThere


def _jpeg(content: bytes) -> Iterator[Size]:
    at = 2
    for _ in range(MOST_STEPS):
        at = content.find(b"\xff", at)
        if at < 0:
            raise NotThere
        (code,) = unpack_from(">B", content, at + 1)
        if code == JPEG_PIXELS_FOLLOW:
            return
        if code in JPEG_NO_PART:
            at += 1
            continue
        (length,) = unpack_from(">H", content, at + 2)
        if code in JPEG_FRAMES:
            height, width = unpack_from(">HH", content, at + 5)
            yield width, height
        at += 2 + length
    raise NotThere


def _gif(content: bytes) -> Iterator[Size]:
    """The screen that its pictures lie in."""
    yield unpack_from("<HH", content, 6)


def _bmp(content: bytes) -> Iterator[Size]:
    """Lines may be counted downwards, below zero."""
    (header,) = unpack_from("<I", content, 14)
    width, height = unpack_from("<HH" if header == 12 else "<ii", content, 18)
    yield abs(width), abs(height)


def _tiff(content: bytes) -> Iterator[Size]:
    """Of the first picture of several, which is the one that is looked at."""
    order = "<" if content[:2] == b"II" else ">"
    (at,) = unpack_from(f"{order}I", content, 4)
    (count,) = unpack_from(f"{order}H", content, at)
    sides: dict[int, int] = {}
    for place in range(at + 2, at + 2 + 12 * min(count, MOST_STEPS), 12):
        tag, kind = unpack_from(f"{order}HH", content, place)
        if tag in (TIFF_WIDTH, TIFF_HEIGHT):
            (side,) = unpack_from(f"{order}{'H' if kind == TIFF_SHORT else 'I'}", content, place + 8)
            sides[tag] = max(side, sides.get(tag, 0))
    if len(sides) < 2:
        raise NotThere
    yield sides[TIFF_WIDTH], sides[TIFF_HEIGHT]


def _ppm(content: bytes) -> Iterator[Size]:
    if (found := PPM.match(content)) is not None:
        yield int(found[1]), int(found[2])


def _webp(content: bytes) -> Iterator[Size]:
    """The canvas of the extended form, or the picture itself of the two others."""
    match content[12:16]:
        case b"VP8X":
            low, high = unpack_from("<HB", content, 24), unpack_from("<HB", content, 27)
            yield 1 + low[0] + (low[1] << 16), 1 + high[0] + (high[1] << 16)
        case b"VP8L":
            (bits,) = unpack_from("<I", content, 21)
            yield 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = unpack_from("<HH", content, 26)
            yield width & 0x3FFF, height & 0x3FFF


READERS: dict[str, Callable[[bytes], Iterator[Size]]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/bmp": _bmp,
    "image/tiff": _tiff,
    "image/x-portable-pixmap": _ppm,
    "image/webp": _webp,
}
