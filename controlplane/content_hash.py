"""One hash for all files of a model or a dataset: who has the same files has the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def content_sha256(checksums: Mapping[str, str]) -> str:
    """Of file name → SHA-256, in hexadecimal, as `sha256sum * | sha256sum` makes it.

    Empty when one is unknown.
    """
    if not checksums or not all(checksums.values()):
        return ""
    lines = "".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums))
    return hashlib.sha256(lines.encode()).hexdigest()
