"""Pictures and sounds in messages: checked where they are given, found again where they are sent on."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.checks import mapping, one_of, only, string
from gateway.errors import invalid, unsupported
from gateway.media.sizes import MOST_PIXELS_TOGETHER, pixels_of
from gateway.media.types import audio_type, image_type
from gateway.snapshot import Model

Part = dict[str, Any]

ROLES = ("user", "tool")
"""Whose messages may hold more than text."""
MOST_IMAGES = 30
PIXELS = "pixels"
"""Of an image, beside it until its request has been read."""
DETAILS = ("auto", "low", "high")


def read_part(field: str, part: Mapping[str, Any], role: str) -> Part:
    """A part that is no text, as the engine reads it; 400 naming what is wrong."""
    kind = part["type"]
    if kind == "video_url":
        raise unsupported(f"{field}.type", "video_url input")
    if role not in ROLES:
        raise invalid(f"'{field}.type' must be text in a message of the role {role}", f"{field}.type")
    only(field, dict(part), {"type", kind})
    return _image(f"{field}.{kind}", part.get(kind)) if kind == "image_url" else _audio(field, part.get(kind))


def media_of(body: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of a request's messages that are no text."""
    for message in body.get("messages", ()):
        content = message["content"]
        if type(content) is list:
            yield from (part for part in content if part["type"] != "text")


def require_taken(parts: list[Part], model: Model) -> None:
    """400 for what the model cannot see or hear, and for more than it is sent at once."""
    kinds = [part["type"] for part in parts]
    if "image_url" in kinds and not model.supports_image_input:
        raise unsupported("image_url", f"{model.name} takes no images")
    if "input_audio" in kinds and not model.supports_audio_input:
        raise unsupported("input_audio", f"{model.name} takes no audio")
    if kinds.count("image_url") > MOST_IMAGES:
        raise invalid(f"a request may hold {MOST_IMAGES} images at most", "messages")


def take_pixels(parts: list[Part]) -> int:
    """How many pixels the images have that were sent themselves; the engine is not told."""
    return sum(part.pop(PIXELS, 0) for part in parts)


def require_pixels(pixels: int) -> None:
    """400 for more than an engine is sent at once."""
    if pixels > MOST_PIXELS_TOGETHER:
        message = f"the images have {pixels:,} pixels together; at most {MOST_PIXELS_TOGETHER:,} are taken"
        raise invalid(message, "messages")


def _image(field: str, value: Any) -> Part:
    """The engine has one resolution, so that `detail` changes nothing."""
    image = {"url": value} if isinstance(value, str) else mapping(field, value)
    only(field, image, {"url", "detail"})
    if image.get("detail") is not None:
        one_of(*DETAILS)(f"{field}.detail", image["detail"])
    url = string(f"{field}.url", image.get("url"))
    if not url[:5].lower().startswith("data:"):
        return {"type": "image_url", "image_url": {"url": url}}
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise invalid(f"'{field}.url' must be data:…;base64,… or the URL of an image", f"{field}.url")
    content = _decoded(f"{field}.url", data)
    found = image_type(content)
    if found is None:
        raise invalid(f"'{field}.url' holds no image of a known type", f"{field}.url")
    try:
        pixels = pixels_of(content, found)
    except ValueError as error:
        raise invalid(f"'{field}.url' holds an image that {error}", f"{field}.url") from None
    url = f"data:{found};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}, PIXELS: pixels}


def _audio(field: str, value: Any) -> Part:
    at = f"{field}.input_audio"
    audio = mapping(at, value)
    only(at, audio, {"data", "format"})
    wanted = one_of("wav", "mp3")(f"{at}.format", audio.get("format"))
    data = string(f"{at}.data", audio.get("data"))
    if audio_type(_decoded(f"{at}.data", data)) != wanted:
        raise invalid(f"'{at}.data' holds no {wanted}", f"{at}.data")
    return {"type": "input_audio", "input_audio": {"data": data, "format": wanted}}


def _decoded(field: str, data: str) -> bytes:
    try:
        return b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"'{field}' is not valid base64", field) from None
