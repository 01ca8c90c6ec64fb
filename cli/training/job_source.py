"""The body of a job: the settings of an earlier job, with the flags laid over them."""

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from cli.connection.session import Session
from cli.errors import CliError
from cli.language.options import put
from cli.training.job_flags import EVALUATION, TRAINING

SourceJob = Annotated[
    str | None, typer.Option("--source-job", help="An earlier job to take settings from; flags win over it.")
]
# What `--source-job` takes over: everything that says how to train, and nothing that says what came of it.
OF_TRAINING = ("baseModel", "warmStartFrom", *(flag.path for flag in TRAINING))
OF_JOB = ("dataset", "displayName", *(flag.path for flag in EVALUATION))
# Naming one of a pair replaces the other one of the source.
INSTEAD = (
    ("baseModel", "warmStartFrom"),
    ("batchSize", "batchSizeSamples"),
    ("evaluationDataset", "evalAutoCarveout"),
)
_WANDB = {"apiKey": "WANDB_API_KEY", "project": "WANDB_PROJECT", "entity": "WANDB_ENTITY"}


def job_body(
    session: Session,
    noun: str,
    flags: dict[str, Any],
    source: str | None,
    place: str = "",
    more: Iterable[str] = (),
) -> dict[str, Any]:
    """The body of a create. `place`: where the message keeps the settings of the training.

    `more`: what else of a source job is taken over, by its path.
    """
    fill_wandb(flags)
    training = [f"{place}{path}" for path in OF_TRAINING]
    body = _taken_over(session, noun, source, (*OF_JOB, *training, *more))
    for pair in INSTEAD:
        for one, other in (pair, pair[::-1]):
            if any(_at(flags, f"{where}{one}") for where in ("", place)):
                _drop(body, place, other)
    _lay_over(body, flags)
    _require(body, body.get(place.rstrip("."), {}) if place else body)
    return body


def fill_wandb(flags: dict[str, Any]) -> None:
    """What was not said of Weights & Biases, from the environment, once anything of it was asked for."""
    asked = flags.get("wandbConfig")
    if not asked or asked.get("enabled") is False:
        return
    asked["enabled"] = True
    for key, variable in _WANDB.items():
        if os.environ.get(variable):
            asked.setdefault(key, os.environ[variable])


def _taken_over(session: Session, noun: str, source: str | None, paths: Iterable[str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if source is None:
        return body
    # A dry run looks it up too: the request that it shows is made of it.
    session.ask_account()
    job = session.client.look(session.name(noun, source))
    for path in paths:
        if value := _at(job, path):
            put(body, path, value)
    return body


def _at(message: Any, path: str) -> Any:
    for part in path.split("."):
        message = message.get(part) if isinstance(message, Mapping) else None
    return message


def _drop(body: dict[str, Any], place: str, name: str) -> None:
    body.pop(name, None)
    body.get(place.rstrip("."), {}).pop(name, None)


def _lay_over(body: dict[str, Any], flags: Mapping[str, Any]) -> None:
    for key, value in flags.items():
        if isinstance(value, Mapping) and isinstance(body.get(key), dict):
            _lay_over(body[key], value)
        else:
            body[key] = value


def _require(body: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """What no server can make up: told here, with the flag to type."""
    if not body.get("dataset"):
        raise CliError("the job has no dataset", advice=["add --dataset ID", "firectl list datasets"])
    if not training.get("baseModel") and not training.get("warmStartFrom"):
        raise CliError(
            "the job has no model to start from",
            advice=["add --base-model accounts/ACCOUNT/models/MODEL", "firectl list models"],
        )
