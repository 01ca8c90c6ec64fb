"""The path converter of resource ids: an id ends where a custom verb's colon begins."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class ResourceIdConvertor(Convertor[str]):
    regex = "[^/:\x00]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("rid", ResourceIdConvertor())
