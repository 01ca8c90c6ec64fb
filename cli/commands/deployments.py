"""Deployments: serving a base model on GPUs of one's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.errors import CliError
from cli.options import Fields, Flag, Kind, camel_case
from cli.registry import command
from cli.resources import short_id
from cli.session import Session
from cli.waiting import Verdict, state_line, state_of, status_of, wait_for

_POLICY = "autoscalingPolicy"
# What both create and update take.
_FLAGS = (
    Flag("accelerator-count", "acceleratorCount", "GPUs for each replica.", Kind.INTEGER),
    Flag("accelerator-type", "acceleratorType", "Its type, such as NVIDIA_H100_80GB.", Kind.ACCELERATOR),
    Flag("deployment-shape", "deploymentShape", "A deployment shape to take the settings from."),
    Flag("deployment-template", "deploymentTemplate", "A deployment template."),
    Flag("description", "description", "What it is for; fewer than 1000 characters."),
    Flag("direct-route-api-keys", "directRouteApiKeys", "Keys for the direct route.", Kind.WORDS),
    Flag("direct-route-type", "directRouteType", "INTERNET, GCP_PRIVATE_SERVICE_CONNECT or AWS_PRIVATELINK."),
    Flag("display-name", "displayName", "A name for people; fewer than 64 characters."),
    Flag("draft-model", "draftModel", "The draft model for speculative decoding."),
    Flag("draft-token-count", "draftTokenCount", "How many tokens it drafts.", Kind.INTEGER),
    Flag("enable-addons", "enableAddons", "Let LoRA adapters be deployed on it.", Kind.SWITCH),
    Flag("enable-mtp", "enableMtp", "Multi-token prediction.", Kind.SWITCH),
    Flag("enable-session-affinity", "enableSessionAffinity", "Keep a user on one replica.", Kind.SWITCH),
    Flag("expire-time", "expireTime", "When it ends, such as 2030-01-01T00:00:00Z."),
    Flag("load-targets", f"{_POLICY}.loadTargets", "Load to scale for, such as default=0.8.", Kind.PAIRS),
    Flag("long-prompt", "autoTune.longPrompt", "Tune it for long prompts.", Kind.SWITCH),
    Flag("max-context-length", "maxContextLength", "The longest context, in tokens.", Kind.INTEGER),
    Flag("max-peft-batch-size", "maxPeftBatchSize", "Concurrent requests to adapters.", Kind.INTEGER),
    Flag("max-replica-count", "maxReplicaCount", "The most replicas.", Kind.INTEGER),
    Flag("min-replica-count", "minReplicaCount", "The fewest replicas; 0 scales to zero.", Kind.INTEGER),
    Flag("ngram-speculation-length", "ngramSpeculationLength", "Tokens to guess by n-gram.", Kind.INTEGER),
    Flag("precision", "precision", "The precision to serve in, such as FP16 or FP8."),
    Flag("scale-up-window", f"{_POLICY}.scaleUpWindow", "How long until it grows.", Kind.DURATION),
    Flag("scale-down-window", f"{_POLICY}.scaleDownWindow", "How long before it shrinks.", Kind.DURATION),
    Flag("scale-to-zero-window", f"{_POLICY}.scaleToZeroWindow", "How long idle before 0.", Kind.DURATION),
    Flag("world-size", "worldSize", "GPUs that the model is split over.", Kind.INTEGER),
)
_CREATE_FLAGS = (
    *_FLAGS,
    Flag("deployment-id", "?deploymentId", "The id; made up by default.", also=("--deployment",)),
    Flag("region", "placement.region", "The region to run in."),
    Flag("disable-speculative-decoding", "?disableSpeculativeDecoding", "No draft model.", Kind.SWITCH),
    Flag("disable-auto-deploy", "?disableAutoDeploy", "Do not deploy the base model on it.", Kind.SWITCH),
    Flag("validate-only", "?validateOnly", "Only check the request.", Kind.SWITCH),
)
_ID = typer.Argument(metavar="ID", help="The deployment's id or name.")
_WAIT = typer.Option("--wait/--no-wait", help="Wait until it is done.", show_default=False)
_TIMEOUT = typer.Option("--wait-timeout", help="How long to wait at most.", metavar="DURATION")


@command("create", "deployment", flags=_CREATE_FLAGS)
def create_deployment(
    session: Session,
    fields: Fields,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The base model's id or name.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A YAML or JSON file with the deployment; flags win over it.")
    ] = None,
    wait: Annotated[bool, _WAIT] = False,
    wait_timeout: Annotated[str, _TIMEOUT] = "1h",
) -> None:
    """Serve a base model on GPUs of your own."""
    body = _merged(_from_file(file) if file else {}, fields.body)
    if model:
        body["baseModel"] = model
    if not body.get("baseModel"):
        raise CliError("which model?", advice=["firectl create deployment MODEL", "firectl list models"])
    created = session.client.call("POST", session.parent("deployment"), query=fields.query, body=body)
    name = str(created.get("name", ""))
    if wait and not fields.query.get("validateOnly"):
        session.output.note(f"Created {name}")
        created = wait_ready(session, name, wait_timeout)
    session.output.resource(created)
    if not wait and state_of(created) == "CREATING":
        session.output.note(f"Watch it with: firectl get deployment {short_id(name)}")


@command("update", "deployment", flags=_FLAGS)
def update_deployment(session: Session, id: Annotated[str, _ID], fields: Fields) -> None:
    """Change a deployment while it serves."""
    standard.update(session, "deployment", id, fields)


@command("scale", "deployment")
def scale_deployment(
    session: Session,
    id: Annotated[str, _ID],
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
)
def delete_deployment(
    session: Session,
    id: Annotated[str, _ID],
    fields: Fields,
    wait: Annotated[bool, _WAIT] = False,
    wait_timeout: Annotated[str, _TIMEOUT] = "1h",
) -> None:
    """Stop a deployment and delete it."""
    name = standard.delete(session, "deployment", id, fields.query)
    if wait:
        wait_for(
            session, name, _judge_deleted, timeout=wait_timeout, lives_on=[f"firectl get deployment {name}"]
        )


@command("undelete", "deployment")
def undelete_deployment(
    session: Session,
    id: Annotated[str, _ID],
    wait: Annotated[bool, _WAIT] = False,
    wait_timeout: Annotated[str, _TIMEOUT] = "1h",
) -> None:
    """Bring back a deployment that was deleted a short while ago."""
    name = session.name("deployment", id)
    revived = session.client.call("POST", f"{name}:undelete", body={})
    session.output.resource(wait_ready(session, name, wait_timeout) if wait else revived)


def wait_ready(session: Session, name: str, timeout: str) -> dict[str, Any]:
    """Waits until a deployment serves."""
    short = short_id(name)
    return wait_for(
        session,
        name,
        judge_deployment,
        timeout=timeout,
        lives_on=[
            f"watch it: firectl get deployment {short}",
            f"delete it: firectl delete deployment {short}",
        ],
    )


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
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{path} is neither YAML nor JSON: {json.dumps(str(error))}") from None
    if not isinstance(found, dict):
        raise CliError(f"{path} does not hold a deployment: it should be a list of `field: value` lines")
    return {camel_case(str(key)): value for key, value in found.items()}


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`, message by message."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        merged[key] = _merged(below, value) if both and isinstance(below, dict) else value
    return merged
