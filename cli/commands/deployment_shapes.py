"""Deployment shapes: settings for serving a base model, and the versions that every change of them makes."""

from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import CliError, UsageError
from cli.language.enums import near_values
from cli.language.flags import group
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.resources import RESOURCES, short_id

_VERSION = RESOURCES["deployment-shape-version"]
# What a deployment takes over from a shape.
_ENGINE = group(
    "Hardware",
    Flag("accelerator-count", "acceleratorCount", "GPUs for each replica.", Kind.INTEGER),
    Flag("accelerator-type", "acceleratorType", "Its type, such as H100_80GB.", Kind.ACCELERATOR),
    Flag("precision", "precision", "The precision to serve in, such as FP16 or FP8."),
)
_SERVING = (
    Flag("enable-addons", "enableAddons", "Let LoRA adapters be deployed on it.", Kind.SWITCH),
    Flag("max-context-length", "maxContextLength", "The longest context, in tokens.", Kind.INTEGER),
)
# The server refuses what it cannot do, with the reason.
_FLAGS = (
    Flag("display-name", "displayName", "A name for people."),
    Flag("description", "description", "What it is for; fewer than 1000 characters."),
    *_SERVING,
    Flag("num-lora-device-cached", "numLoraDeviceCached", "Adapters kept on the device.", Kind.INTEGER),
    Flag("preset-type", "presetType", "What it is meant for: FAST, THROUGHPUT, MINIMAL, CHAT, …"),
    Flag("enable-session-affinity", "enableSessionAffinity", "Keep a user on one replica.", Kind.SWITCH),
    *_ENGINE,
    *group(
        "Speculative decoding",
        Flag("draft-model", "draftModel", "The draft model."),
        Flag("draft-token-count", "draftTokenCount", "Tokens guessed at a time.", Kind.INTEGER),
        Flag("ngram-speculation-length", "ngramSpeculationLength", "Tokens looked back for.", Kind.INTEGER),
    ),
)
_SHAPE = typer.Argument(metavar="ID", help="The shape's id or name.")
_VERSION_ID = typer.Argument(metavar="SHAPE/VERSION", help="Such as fast/versions/1a2b3c, or its full name.")
_BASE_MODEL = typer.Option("--base-model", metavar="MODEL", help="Only of this base model.")


@command(
    "create",
    "deployment-shape",
    flags=(Flag("deployment-shape-id", "?deploymentShapeId", "The id; made up by default."), *_FLAGS),
    example="firectl create deployment-shape my-model --deployment-shape-id fast --precision BF16",
    see_also=("list deployment-shape-versions", "update deployment-shape-version", "create deployment"),
)
def create_deployment_shape(
    session: Session,
    fields: Fields,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base model's id or name.")],
) -> None:
    """Keep settings for serving a base model, under a name that deployments can be created with."""
    body = {**fields.body, "baseModel": session.name("model", model)}
    with near_values():
        made = session.client.call("POST", session.parent("deployment-shape"), query=fields.query, body=body)
    session.output.resource(made)
    short = short_id(str(made.get("name", "")))
    session.output.note("A deployment may name it once one of its versions is validated; to see them:")
    session.output.note(f"firectl list deployment-shape-versions {short}")


@command(
    "update",
    "deployment-shape",
    flags=(
        *_FLAGS,
        Flag(
            "from-latest-validated",
            "?fromLatestValidated",
            "Change what its latest validated version says, not what the shape says now.",
            Kind.SWITCH,
        ),
    ),
    example="firectl update deployment-shape fast --max-context-length 8192",
    see_also=("list deployment-shape-versions", "get deployment-shape"),
)
def update_deployment_shape(session: Session, id: Annotated[str, _SHAPE], fields: Fields) -> None:
    """Change a shape, which makes a new version of it. Deployments keep the version they have."""
    with near_values():
        standard.update(session, "deployment-shape", id, fields)


@command(
    "list",
    "deployment-shape",
    flags=(Flag("target-model", "?targetModel", "Only for this model, or its base."), *standard.LIST_FLAGS),
    example="firectl list deployment-shapes --target-model my-model",
    see_also=("list deployment-shape-versions", "match deployment-shape-version", "create deployment"),
)
def list_deployment_shapes(
    session: Session, fields: Fields, no_paginate: standard.NoPaginate = False
) -> None:
    """List deployment shapes; with --account-id, what another account shows of its own."""
    if target := fields.query.get("targetModel"):
        fields.query["targetModel"] = session.name("model", target)
    kind = RESOURCES["deployment-shape"]
    standard.show_list(session, kind, session.parent(kind.noun), fields, no_paginate)


@command(
    "list",
    "deployment-shape-version",
    flags=standard.LIST_FLAGS,
    example="firectl list deployment-shape-versions --base-model my-model",
    see_also=("match deployment-shape-version", "get deployment-shape-version", "list deployment-shapes"),
)
def list_deployment_shape_versions(
    session: Session,
    fields: Fields,
    shape: Annotated[
        str | None, typer.Argument(metavar="[SHAPE]", help="Of this shape; of all shapes by default.")
    ] = None,
    base_model: Annotated[str | None, _BASE_MODEL] = None,
    no_paginate: standard.NoPaginate = False,
) -> None:
    """List the versions of a shape, or of all shapes."""
    if base_model:
        wanted = f'snapshot.base_model = "{session.name("model", base_model)}"'
        given = fields.query.get("filter")
        fields.query["filter"] = f"{wanted} AND ({given})" if given else wanted
    parent = f"{session.name('deployment-shape', shape)}/versions" if shape else session.parent(_VERSION.noun)
    standard.show_list(session, _VERSION, parent, fields, no_paginate)


@command(
    "update",
    "deployment-shape-version",
    flags=(
        Flag("validated", "validated", "Deployments may name it.", Kind.SWITCH),
        Flag("public", "public", "Other accounts may read it.", Kind.SWITCH),
    ),
    example="firectl update deployment-shape-version fast/versions/1a2b3c --validated",
    see_also=("list deployment-shape-versions", "create deployment"),
)
def update_deployment_shape_version(
    session: Session, id: Annotated[str, _VERSION_ID], fields: Fields
) -> None:
    """Say of a version that deployments of it serve as they should, or show it to other accounts."""
    standard.update(session, _VERSION.noun, id, fields)


@command(
    "match",
    "deployment-shape-version",
    flags=(
        *_SERVING,
        Flag("max-peft-batch-size", "maxPeftBatchSize", "Adapters kept on the device.", Kind.INTEGER),
        *_ENGINE,
        Flag("deployment-shape", "deploymentShape", "Only versions of this shape."),
    ),
    example="firectl match deployment-shape-version --model my-model",
    see_also=("create deployment", "list deployment-shape-versions"),
)
def match_deployment_shape_versions(
    session: Session,
    fields: Fields,
    given: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The model to serve.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="The same, as a flag.")] = None,
    unvalidated: Annotated[
        bool, typer.Option("--skip-shape-validation", help="Those that are not validated, too.")
    ] = False,
) -> None:
    """Find the shapes that a deployment of a model could be created with, the newest first."""
    rows = _matching(session, _one_model(given, model), fields.body, unvalidated)
    session.output.rows(_VERSION, rows, session.account_id)
    if not rows:
        session.output.note("None fits; a deployment can be created without one")


def _one_model(given: str | None, model: str | None) -> str:
    if given and model and given != model:
        raise UsageError(f'which model: "{given}" or "{model}"?')
    if not (found := given or model):
        raise UsageError("which model?", advice=["firectl match deployment-shape-version --model MODEL"])
    return found


def _matching(
    session: Session, model: str, settings: dict[str, Any], unvalidated: bool
) -> list[dict[str, Any]]:
    parent = f"accounts/{session.account_id}"
    wanted: dict[str, Any] = {
        "parent": parent,
        "deployment": {**settings, "baseModel": session.name("model", model)},
    }
    if unvalidated:
        wanted["skipShapeValidation"] = True
    answer = session.client.call(
        "POST", f"{parent}/deploymentShapeVersions:match", body={"createDeploymentRequest": wanted}
    )
    found = answer.get(_VERSION.key)
    if not isinstance(found, list):
        raise CliError("the server does not say which shapes fit")
    return found
