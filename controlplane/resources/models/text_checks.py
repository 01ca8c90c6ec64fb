"""What can be said of a model before its files are uploaded: from the text of its configuration alone."""

from __future__ import annotations

import json
from typing import Any

from controlplane.checks.architectures import architectures
from controlplane.checks.model_config import CUSTOM_CODE_KEYS, read_config
from controlplane.checks.problems import ProblemList
from controlplane.checks.wording import shown
from controlplane.errors import ApiError, Code, field_violations, invalid
from controlplane.resources.models.schemas import ValidateModelConfigRequest
from controlplane.rest.router import read_json

CONFIG, TOKENIZER = "configJson", "tokenizerConfigJson"


def check_model_config(request: ValidateModelConfigRequest) -> None:
    """400 with every problem of a config.json and, where it is given, of a tokenizer_config.json."""
    config = _read(request.config_json, CONFIG)
    problems = ProblemList()
    read_config(config, {name: facts.supports_lora for name, facts in architectures().items()}, problems)
    found = [(f"{CONFIG}.{problem.field}", problem.reason) for problem in problems]
    if request.tokenizer_config_json:
        found += _tokenizer_problems(_read(request.tokenizer_config_json, TOKENIZER))
    if found:
        place, reason = found[0]
        more = f" (and {len(found) - 1} more problems)" if len(found) > 1 else ""
        raise ApiError(Code.INVALID_ARGUMENT, f"{place}: {reason}{more}", [field_violations(found)])


def _read(text: str, field: str) -> dict[str, Any]:
    try:
        found = read_json(text.encode())
    except json.JSONDecodeError as error:
        raise invalid(f"{field} is not valid JSON: {error}", field) from None
    except RecursionError:
        raise invalid(f"{field} is nested too deeply", field) from None
    if not isinstance(found, dict):
        raise invalid(f"{field} must hold a JSON object, found {shown(found)}", field)
    return found


def _tokenizer_problems(config: dict[str, Any]) -> list[tuple[str, str]]:
    found = [
        (f"{TOKENIZER}.{key}", "names code of the tokenizer's own, which is never run")
        for key in CUSTOM_CODE_KEYS
        if config.get(key)
    ]
    template = config.get("chat_template")
    if not isinstance(template, str | list | None):
        text = f"must be a string or a list of named templates, found {shown(template)}"
        found.append((f"{TOKENIZER}.chat_template", text))
    return found
