"""What bytes are, by how they begin: neither a name nor a header of the sender is believed."""

from __future__ import annotations

IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"P3", "image/x-portable-pixmap"),
    (b"P6", "image/x-portable-pixmap"),
)
NAMES = "png, jpeg, gif, bmp, tiff, ppm and webp"


def image_type(content: bytes) -> str | None:
    """The MIME type; None for what is no image that models take."""
    for beginning, name in IMAGES:
        if content.startswith(beginning):
            return name
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def audio_type(content: bytes) -> str | None:
    """`wav`, `mp3`, or None."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return "wav"
    is_frame = len(content) > 1 and content[0] == 0xFF and content[1] & 0xE6 in (0xE2, 0xE4, 0xE6)
    return "mp3" if content.startswith(b"ID3") or is_frame else None
