"""Deployed models: models on deployments. `deploy` and `load-lora` are two names of one thing."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.errors import CliError
from cli.options import Fields, Flag, Kind
from cli.registry import command
from cli.resources import RESOURCES, short_id
from cli.session import Session
from cli.waiting import Verdict, state_line, state_of, status_of, wait_for

_UPDATE = (
    Flag("default", "default", "Requests that name the model alone go here.", Kind.SWITCH),
    Flag("description", "description", "What it is for."),
    Flag("display-name", "displayName", "A name for people."),
    Flag("public", "public", "Let other accounts query it.", Kind.SWITCH),
)
_DEPLOY = (
    Flag("public", "public", "Let other accounts query it.", Kind.SWITCH),
    Flag("display-name", "displayName", "A name for people."),
    Flag("description", "description", "What it is for."),
    Flag("replace-merged-addon", "?replaceMergedAddon", "Take the place of the adapter there.", Kind.SWITCH),
)
# States in which the server may still get there: it says why it waits.
_PASSING = frozenset({"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED"})
_MODEL = typer.Argument(metavar="MODEL", help="The model's id or name.")
_DEPLOYMENT = typer.Option(
    "--deployment-id", "--deployment", help="The deployment's id or name.", show_default=False
)
_WAIT = typer.Option("--wait/--no-wait", help="Wait until it is done.", show_default=False)
_TIMEOUT = typer.Option("--wait-timeout", help="How long to wait at most.", metavar="DURATION")


@command("load-lora", "model", flags=_DEPLOY, alone=True)
@command("deploy", "model", flags=_DEPLOY, alone=True)
def deploy(
    session: Session,
    model: Annotated[str, _MODEL],
    fields: Fields,
    deployment_id: Annotated[str | None, _DEPLOYMENT] = None,
    wait: Annotated[bool, _WAIT] = False,
    wait_timeout: Annotated[str, _TIMEOUT] = "30m",
) -> None:
    """Deploy a LoRA adapter on a deployment; without one the server decides where."""
    body = {"model": session.name("model", model), **fields.body}
    if deployment_id:
        body["deployment"] = session.name("deployment", deployment_id)
    created = session.client.call("POST", session.parent("deployed-model"), query=fields.query, body=body)
    if wait:
        created = _wait_deployed(session, str(created.get("name", "")), wait_timeout)
    session.output.resource(created)


@command("unload-lora", "model", alone=True)
@command("undeploy", "model", alone=True)
def undeploy(
    session: Session,
    model: Annotated[str, _MODEL],
    deployment_id: Annotated[str | None, _DEPLOYMENT] = None,
    wait: Annotated[bool, _WAIT] = False,
    wait_timeout: Annotated[str, _TIMEOUT] = "30m",
) -> None:
    """Take a model off its deployment."""
    deployed = _the_deployed_model(session, model, deployment_id)
    name = standard.delete(session, "deployed-model", deployed)
    if wait:
        watch = [f"firectl get deployed-model {short_id(name)}"]
        wait_for(session, name, _judge_gone, timeout=wait_timeout, lives_on=watch)


@command("update", "deployed-model", flags=_UPDATE)
def update_deployed_model(
    session: Session, id: Annotated[str, typer.Argument(metavar="ID", help="Its id or name.")], fields: Fields
) -> None:
    """Change a deployed model, for instance make it its model's default."""
    standard.update(session, "deployed-model", id, fields)


def _wait_deployed(session: Session, name: str, timeout: str) -> dict[str, Any]:
    short = short_id(name)
    lives_on = [
        f"watch it: firectl get deployed-model {short}",
        f"take it off: firectl undeploy {name}",
    ]
    return wait_for(session, name, judge_deployed_model, timeout=timeout, lives_on=lives_on)


def judge_deployed_model(deployed: Mapping[str, Any] | None) -> Verdict:
    """Deployed, failed, or on its way."""
    if deployed is None:
        return Verdict("", failure="the deployed model was removed")
    state, line = state_of(deployed), state_line(deployed)
    code, message = status_of(deployed)
    if state == "DEPLOYED":
        return Verdict(line, done=True)
    if state == "UNDEPLOYING" or code not in _PASSING:
        return Verdict(line, failure=f"the model was not deployed: {message or code}")
    return Verdict(line)


def _judge_gone(deployed: Mapping[str, Any] | None) -> Verdict:
    return Verdict("gone", done=True) if deployed is None else Verdict(state_line(deployed))


def _the_deployed_model(session: Session, given: str, deployment_id: str | None) -> str:
    """The name of the one deployed model that is meant by a model (and a deployment)."""
    if "/deployedModels/" in given:
        return given
    model = session.name("model", given)
    kind = RESOURCES["deployed-model"]
    pages = session.client.pages(session.parent(kind.noun), kind.collection, {"pageSize": 200})
    rows = [row for page, _token in pages for row in page if row.get("model") == model]
    if deployment_id:
        deployment = session.name("deployment", deployment_id)
        rows = [row for row in rows if row.get("deployment") == deployment]
    if not rows:
        where = f" on {deployment_id}" if deployment_id else ""
        raise CliError(f"{model} is not deployed{where}", advice=["firectl list deployed-models"])
    if len(rows) > 1:
        places = [f"--deployment-id {short_id(str(row.get('deployment', '')))}" for row in rows]
        raise CliError(f"{model} is deployed in {len(rows)} places; name one", details=places)
    return str(rows[0]["name"])
