"""Every route of the app, what it asks of a caller, and a request for it: what is added is found here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from starlette.routing import Route

from controlplane.context import authenticated
from controlplane.permissions import Permission

OPEN = {
    "alive",
    "ready",
    "get_version",
    "openapi",
    "show_docs",
    "get_docs_file",
    # These exchange what an identity provider gave, or a session's own token, for new tokens.
    "start_sign_in",
    "finish_sign_in",
    "start_device_sign_in",
    "poll_device_sign_in",
    "refresh_tokens",
    "sign_out",
}
"""Routes without a key."""

ANY_KEY = {"verify_api_key"}
"""Routes for everybody with a key, whatever the role."""

PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True)
class Endpoint:
    route: Any
    method: str

    def __str__(self) -> str:
        return f"{self.method} {self.route.path}"

    @property
    def name(self) -> str:
        return str(self.route.name)

    @cached_property
    def _dependencies(self) -> list[Any]:
        dependant = getattr(self.route, "dependant", None)
        return list(_all_calls(dependant)) if dependant else []

    @property
    def needs_key(self) -> bool:
        return authenticated in self._dependencies

    @property
    def permission(self) -> Permission | None:
        return next((call.permission for call in self._dependencies if hasattr(call, "permission")), None)

    @property
    def shows_other_accounts(self) -> bool:
        return any(getattr(call, "other_accounts", False) for call in self._dependencies)

    @property
    def parameters(self) -> list[str]:
        return [match[1] for match in PARAMETER.finditer(self.route.path)]

    @property
    def table(self) -> str:
        """The table of the resource that the path names last: `models` for `…/models/{model_id}:prepare`."""
        named = re.findall(r"/(\w+)/\{\w+(?::\w+)?\}", self.route.path)
        return re.sub(r"(?<!^)(?=[A-Z])", "_", named[-1]).lower() if named else ""

    def url(self, **values: str) -> str:
        return PARAMETER.sub(lambda match: values[match[1]], self.route.path)

    @property
    def message(self) -> Any:
        """What its body is read as; None without one."""
        field = getattr(self.route, "body_field", None)
        return field.field_info.annotation if field is not None else None

    def body(self) -> Any:
        """The smallest JSON that the endpoint reads; None without a body."""
        return example(self.message) if self.message else None


def endpoints(app: FastAPI) -> list[Endpoint]:
    return [
        Endpoint(route, method)
        for route in app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
        if method != "HEAD"
    ]


def _all_calls(dependant: Any) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _all_calls(inner)


EXAMPLES: tuple[tuple[type, Any], ...] = (
    (bool, False),
    (str, "text"),
    (int, 1),
    (float, 1.0),
    (datetime, "2999-01-01T00:00:00Z"),
    (timedelta, "600s"),
    (dict, {}),
    (list, []),
)


def example(kind: Any) -> Any:
    """A value that a type takes: of a message, its required fields only."""
    if get_origin(kind) is Annotated:
        return example(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {
            field.alias or to_camel(name): example(field.annotation)
            for name, field in kind.model_fields.items()
            if field.is_required()
        }
    plain = get_origin(kind) or kind
    if isinstance(plain, type):
        return next((value for known, value in EXAMPLES if issubclass(plain, known)), None)
    return None
