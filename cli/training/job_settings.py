"""The request for a fine-tuning job, from a settings file and flags; flags win."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.errors import CliError
from cli.language.options import camel_case, snake_case
from cli.language.yaml_files import camel_keys, read_mapping

EXAMPLE = "dataset: my-dataset"

KINDS = {
    "text_completion": ("inputTemplate", "outputTemplate"),
    "text_classification": ("text", "label"),
    "conversation": ("jinjaTemplate",),
}


def read_settings(path: Path) -> dict[str, Any]:
    """A YAML settings file as the API's camelCase fields.

    What belongs under a kind and stands beside it, not indented, is taken for what it can only be.
    """
    settings: dict[str, Any] = camel_keys(read_mapping(path, "settings", EXAMPLE))
    for kind, names in KINDS.items():
        field = camel_case(kind)
        if field in settings and not settings[field]:
            beside = {name: settings.pop(name) for name in names if name in settings}
            settings[field] = {name: value for name, value in beside.items() if value is not None}
    return settings


def job_request(
    settings: Mapping[str, Any], flags: Mapping[str, Any], kind: str | None, kind_fields: Mapping[str, str]
) -> tuple[dict[str, Any], str | None]:
    """(body, job id) of the create request.

    `kind` and `kind_fields` are `--kind` and the template flags; `flags` are the body fields of the others.
    """
    # `conversation:` with nothing after it names the kind; any other empty key says nothing.
    kinds = {camel_case(name) for name in KINDS}
    body = {
        key: {} if value is None else value
        for key, value in settings.items()
        if value is not None or key in kinds
    }
    given_id = flags.get("jobId") or body.get("jobId")
    body.update(flags)
    body.pop("jobId", None)
    # Naming a base model replaces the file's warm start, and the other way round.
    if "baseModel" in flags and "warmStartFrom" not in flags:
        body.pop("warmStartFrom", None)
    if "warmStartFrom" in flags and "baseModel" not in flags:
        body.pop("baseModel", None)
    if "evaluationSplit" in flags:
        body.setdefault("evaluation", True)
    _choose_kind(body, kind, kind_fields)
    _require(body)
    return body, str(given_id) if given_id else None


def _choose_kind(body: dict[str, Any], kind: str | None, kind_fields: Mapping[str, str]) -> None:
    """Leaves one kind in the body: the one that flags name or imply, else the file's."""
    chosen = (kind or _implied(kind_fields) or "").replace("-", "_")
    if not chosen:
        return
    if chosen not in KINDS:
        raise _no_such_kind(chosen)
    foreign = [name for name in kind_fields if name not in KINDS[chosen]]
    if foreign:
        raise CliError(f"a {chosen} job takes no {', '.join(foreign)}")
    stored = body.get(camel_case(chosen))
    for other in KINDS:
        body.pop(camel_case(other), None)
    body[camel_case(chosen)] = {**(stored if isinstance(stored, dict) else {}), **kind_fields}


def _no_such_kind(given: str) -> CliError:
    import difflib

    near = difflib.get_close_matches(given, KINDS, n=1)
    advice = [f"did you mean {near[0]}?"] if near else []
    return CliError(f'there is no kind "{given}"; the kinds are {", ".join(KINDS)}', advice=advice)


def _implied(kind_fields: Mapping[str, str]) -> str | None:
    return next((kind for kind, names in KINDS.items() if any(n in kind_fields for n in names)), None)


def _require(body: Mapping[str, Any]) -> None:
    """What no server can make up: told here, with the flag to type."""
    if not body.get("dataset") and not body.get("datasets"):
        raise CliError(
            "the job has no dataset", advice=["add --dataset ID, or `dataset: ID` to the settings file"]
        )
    if not body.get("baseModel") and not body.get("warmStartFrom"):
        raise CliError(
            "the job has no model to start from",
            advice=["add --base-model accounts/ACCOUNT/models/MODEL, or `base_model:` to the settings file"],
        )
    if not any(camel_case(kind) in body for kind in KINDS):
        raise CliError(
            "the job has no kind",
            advice=["add --kind conversation (or text_completion with its templates)"],
        )
    _require_templates(body)


def _require_templates(body: Mapping[str, Any]) -> None:
    for kind in ("text_completion", "text_classification"):
        given = body.get(camel_case(kind))
        missing = [name for name in KINDS[kind] if isinstance(given, dict) and not given.get(name)]
        if missing:
            words = [snake_case(name) for name in missing]
            flags = [f"--{word.replace('_', '-')} TEXT" for word in words]
            raise CliError(f"a {kind} job needs {' and '.join(words)}", advice=[f"add {' '.join(flags)}"])
