"""Deployments: serving a base model on GPUs of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import ApiError, CliError, UsageError
from cli.language.deployment_flags import CREATE, UPDATE
from cli.language.enums import near_values
from cli.language.flags import Wait, WaitTimeout, refuse
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command
from cli.language.yaml_files import camel_keys, read_mapping
from cli.resources import short_id
from cli.show.waiting import Verdict, WaitFailed, state_line, state_of, status_of, wait_for

_LAST_LINES = 10
_EXAMPLE = "firectl create deployment my-model --enable-addons --wait"
_Id = Annotated[str, typer.Argument(metavar="ID", help="The deployment's id or name.")]


@command(
    "create",
    "deployment",
    flags=CREATE,
    example=_EXAMPLE,
    see_also=("get deployment", "scale deployment", "deploy"),
)
def create_deployment(
    session: Session,
    fields: Fields,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The base model's id or name.")] = None,
    model_id: Annotated[
        str | None, typer.Option("--model-id", help="An adapter of the model to deploy on it as well.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A YAML or JSON file with the deployment; flags win over it.")
    ] = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
) -> None:
    """Serve a base model on GPUs of your own."""
    refuse(fields, CREATE)
    body = _merged(_from_file(file) if file else {}, _spelled_out(fields).body)
    if model:
        body["baseModel"] = model
    if not body.get("baseModel") and not body.get("deploymentShape"):
        raise UsageError("which model?", advice=["firectl create deployment MODEL", "firectl list models"])
    try:
        with near_values():
            created = session.client.call("POST", session.parent("deployment"), query=fields.query, body=body)
    except ApiError as error:
        error.advice += _ways_for_an_adapter(session, str(body.get("baseModel") or ""), error)
        raise
    if fields.query.get("validateOnly"):
        session.output.note("The request is good; nothing was created")
        session.output.resource(created)
        return
    _show_created(session, created, model_id, wait_timeout if wait else None)


def _show_created(
    session: Session, created: dict[str, Any], adapter: str | None, wait_timeout: str | None
) -> None:
    """The new deployment, with the adapter that was asked for on it, once it is ready if one waits."""
    name = str(created.get("name", ""))
    if adapter:
        _deploy(session, created, adapter)
    if wait_timeout is not None:
        session.output.note(f"Waiting for {name}")
        created = wait_ready(session, name, wait_timeout)
    session.output.resource(created)
    if state_of(created) == "READY":
        session.output.note(f"Ask it with: firectl chat {name}")
    else:
        session.output.note(f"Watch it with: firectl get deployment {short_id(name)} --watch")


def _ways_for_an_adapter(session: Session, model: str, error: ApiError) -> list[str]:
    """What to type when the model that was named is an adapter: it goes on a deployment of its base."""
    if error.status != 400 or not model:
        return []
    try:
        details = session.get("model", model).get("peftDetails") or {}
    except CliError:
        return []  # the refusal itself is what matters; it is told already
    base = details.get("baseModel")
    return [f"firectl create deployment {base} --enable-addons --model-id {model} --wait"] if base else []


def _deploy(session: Session, deployment: Mapping[str, Any], model: str) -> None:
    """Has a model deployed on a new deployment; its own base model is there without being asked for."""
    name, deployment_name = session.name("model", model), str(deployment.get("name", ""))
    if name == deployment.get("baseModel"):
        return
    body = {"model": name, "deployment": deployment_name}
    try:
        session.client.call("POST", session.parent("deployed-model"), body=body)
    except CliError as error:
        error.details.append(f"{deployment_name} was created, without {name}")
        error.advice += [
            f"firectl deploy {model} --deployment-id {short_id(deployment_name)}",
            f"firectl delete deployment {short_id(deployment_name)}",
        ]
        raise
    session.output.note(f"{name} comes with it")


@command(
    "update",
    "deployment",
    flags=UPDATE,
    example="firectl update deployment my-deployment --min-replica-count 0 --max-replica-count 2",
    see_also=("get deployment", "scale deployment"),
)
def update_deployment(session: Session, id: _Id, fields: Fields) -> None:
    """Change a deployment while it serves."""
    asked = bool(fields.paths)
    refuse(fields, UPDATE)
    if asked and not fields.paths:
        session.output.resource(session.get("deployment", id))
        return
    with near_values():
        standard.update(session, "deployment", id, _spelled_out(fields))


@command(
    "scale",
    "deployment",
    example="firectl scale deployment my-deployment --replica-count 2",
    see_also=("get deployment", "update deployment"),
)
def scale_deployment(
    session: Session,
    id: _Id,
    replica_count: Annotated[int, typer.Option("--replica-count", min=0, help="How many replicas.")],
) -> None:
    """Set the number of replicas now."""
    name = session.name("deployment", id)
    session.client.call("PATCH", f"{name}:scale", body={"replicaCount": replica_count})
    session.output.resource(session.client.get(name))


@command(
    "delete",
    "deployment",
    flags=(
        Flag("hard", "?hard", "Forget it at once; it cannot be undeleted.", Kind.SWITCH),
        Flag("ignore-checks", "?ignoreChecks", "Delete it even while it is in use.", Kind.SWITCH),
    ),
    example="firectl delete deployment my-deployment --wait",
    see_also=("undelete deployment", "scale deployment"),
)
def delete_deployment(
    session: Session,
    id: _Id,
    fields: Fields,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
) -> None:
    """Stop a deployment and delete it."""
    name = session.name("deployment", id)
    short = short_id(name)
    try:
        session.client.call("DELETE", name, query=fields.query)
    except ApiError as error:
        if "ignoreChecks" in error.message:
            error.advice += [f"firectl delete deployment {short} --ignore-checks"]
        raise
    session.output.note(f"Deleting {name}")
    if wait:
        watch = [f"firectl get deployment {short}"]
        wait_for(session, name, _judge_deleted, timeout=wait_timeout, lives_on=watch)
    if not fields.query.get("hard"):
        session.output.note(f"Bring it back with: firectl undelete deployment {short}")
    if session.output.as_json:
        session.output.json({})


@command(
    "undelete",
    "deployment",
    example="firectl undelete deployment my-deployment --wait",
    see_also=("list deployments", "delete deployment"),
)
def undelete_deployment(
    session: Session,
    id: _Id,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
) -> None:
    """Bring back a deployment that was deleted a short while ago."""
    name = session.name("deployment", id)
    revived = session.client.call("POST", f"{name}:undelete", body={})
    _show_created(session, revived, None, wait_timeout if wait else None)


def wait_ready(session: Session, name: str, timeout: str) -> dict[str, Any]:
    """Waits until a deployment serves; a failure comes with the last words of a replica."""
    short = short_id(name)
    lives_on = [
        f"watch it: firectl get deployment {short} --watch",
        f"delete it: firectl delete deployment {short}",
    ]
    try:
        return wait_for(session, name, judge_deployment, timeout=timeout, lives_on=lives_on)
    except WaitFailed as failure:
        failure.details += _last_words(session, name, failure.message)
        failure.advice += lives_on if failure.resource else []
        raise


def _last_words(session: Session, name: str, told: str) -> list[str]:
    """What the last replica that failed said, unless it is told already."""
    try:
        message = str(session.client.get(f"{name}/terminationMessage").get("message") or "")
    except CliError:
        return []  # the failure itself is what matters; it is told already
    lines = message.strip().splitlines()[-_LAST_LINES:]
    return [] if not lines or message.strip() in told else ["the last replica that failed said:", *lines]


def judge_deployment(deployment: Mapping[str, Any] | None) -> Verdict:
    """Ready, failed, or on its way, with what its replicas are doing."""
    if deployment is None:
        return Verdict("", failure="the deployment was deleted")
    state = state_of(deployment)
    line = state_line(deployment, _replica_words(deployment))
    if state == "READY":
        return Verdict(line, done=True)
    if state == "FAILED":
        code, message = status_of(deployment)
        return Verdict(line, failure=f"the deployment failed: {message or code}")
    if state in ("DELETING", "DELETED"):
        return Verdict(line, failure=f"the deployment is {state}")
    return Verdict(line)


def _judge_deleted(deployment: Mapping[str, Any] | None) -> Verdict:
    if deployment is None or state_of(deployment) == "DELETED":
        return Verdict("DELETED", done=True)
    return Verdict(state_line(deployment))


_STAGES = (
    ("readyReplicaCount", "ready"),
    ("initializingReplicaCount", "starting"),
    ("downloadingModelReplicaCount", "loading weights"),
    ("pendingSchedulingReplicaCount", "waiting for a place"),
)


def _replica_words(deployment: Mapping[str, Any]) -> str:
    """`1 ready, 1 loading weights (of 2)`."""
    stats = deployment.get("replicaStats") or {}
    parts = [f"{stats[key]} {word}" for key, word in _STAGES if stats.get(key)]
    wanted = deployment.get("desiredReplicaCount")
    if not parts:
        return ""
    return f"replicas: {', '.join(parts)}" + (f" (of {wanted})" if wanted else "")


def _from_file(path: Path) -> dict[str, Any]:
    """A deployment in YAML or JSON, with the API's field names or snake_case ones."""
    found = camel_keys(read_mapping(path, "deployment", "base_model: my-model"))
    return {key: value for key, value in found.items() if value is not None}


def _spelled_out(fields: Fields) -> Fields:
    """Precisions in capitals, and the number of GPUs under the name that the API has for it."""
    if fields.body.get("precision"):
        fields.body["precision"] = fields.body["precision"].upper()
    size = fields.body.pop("worldSize", None)
    if size is None:
        return fields
    count = fields.body.get("acceleratorCount", size)
    if count != size:
        raise UsageError(f"--world-size {size} contradicts --accelerator-count {count}; leave it out")
    fields.body["acceleratorCount"] = size
    fields.paths = [*dict.fromkeys("acceleratorCount" if p == "worldSize" else p for p in fields.paths)]
    return fields


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`, message by message."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        merged[key] = _merged(below, value) if both and isinstance(below, dict) else value
    return merged
