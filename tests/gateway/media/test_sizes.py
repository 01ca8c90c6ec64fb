"""How large pictures are, before anything of them is decoded; Pillow, which engines use, is what is right."""

import base64
import io
import struct

import pytest
from PIL import Image

from gateway.errors import GatewayError
from gateway.media.parts import read_part
from gateway.media.sizes import image_size
from gateway.media.types import image_type
from tests.work import calls_of

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP")
BLACK = struct.pack(">I", 0)


def picture(kind, width, height, **options):
    written = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(written, kind, **options)
    return written.getvalue()


def size_of(content):
    kind = image_type(content)
    assert kind is not None
    return image_size(content, kind)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (300, 7), (5, 700)])
def test_the_size_is_the_one_that_engines_find(kind, size):
    content = picture(kind, *size)
    assert size_of(content) == size == Image.open(io.BytesIO(content)).size


@pytest.mark.parametrize(
    "content",
    [
        picture("WEBP", 300, 7, lossless=True),
        picture("WEBP", 300, 7, exif=b"Exif\0\0" + bytes(20)),
        picture("JPEG", 300, 7, progressive=True, icc_profile=bytes(200_000), comment=b"x" * 60_000),
        picture("TIFF", 300, 7, compression="tiff_lzw"),
        picture("PNG", 300, 7, icc_profile=bytes(5000)),
        b"P6 # by hand\n300 # wide\n7\n255\n" + bytes(6300),
    ],
)
def test_other_forms_of_a_format_say_it_elsewhere(content):
    assert size_of(content) == (300, 7) == Image.open(io.BytesIO(content)).size


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_cut_off_has_no_size_or_the_right_one(kind):
    content = picture(kind, 300, 7)
    for end in range(8, min(len(content), 200)):
        cut = content[:end]
        if image_type(cut) is not None:
            assert size_of(cut) in (None, (300, 7))


def png(width, height, *before):
    chunks = [*before, struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(9)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + struct.pack(">I4s", 0, b"IDAT")


def asked(content):
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return read_part("messages[0].content[0]", {"type": "image_url", "image_url": {"url": url}}, "user")


def test_a_small_file_that_unfolds_to_gigabytes_is_refused_by_name():
    with pytest.raises(GatewayError) as refused:
        asked(png(50_000, 40_000))
    assert refused.value.status == 400
    assert refused.value.param == "messages[0].content[0].image_url.url"
    assert "has 50,000 × 40,000 pixels; at most 50,000,000 are taken" in refused.value.message


def test_of_several_sizes_the_largest_counts():
    large = struct.pack(">I4sII", 13, b"IHDR", 50_000, 40_000) + bytes(9)
    assert size_of(png(1, 1, large)) == (50_000, 40_000)


def test_a_picture_that_does_not_say_its_size_is_refused():
    with pytest.raises(GatewayError, match="does not say how large it is"):
        asked(b"\x89PNG\r\n\x1a\n")


HOSTILE = [
    b"\x89PNG\r\n\x1a\n" + (struct.pack(">I4s", 0, b"tEXt") + BLACK) * 500_000,
    b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_000_000,
    b"\xff\xd8" + b"\xff" * 5_000_000,
    b"II*\x00" + struct.pack("<IH", 8, 65_535) + bytes(12 * 65_535),
    b"P6" + b"#\n" * 1_000_000 + b"1 1 255\n",
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_hostile_file_takes_no_time(content):
    found = []
    assert calls_of(lambda: found.append(size_of(content))) < 10_000
    assert found == [None]
