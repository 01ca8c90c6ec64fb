"""Deployed models: models on deployments. `deploy` and `load-lora` are two names of one thing."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.commands import standard
from cli.connection.session import Session
from cli.errors import ApiError, CliError, UsageError
from cli.language.flags import Wait, WaitTimeout
from cli.language.options import Fields, Flag, Kind
from cli.language.registry import command, spellings
from cli.resources import RESOURCES, short_id
from cli.show.waiting import Verdict, WaitFailed, state_line, state_of, status_of, wait_for

_UPDATE = (
    Flag("default", "default", "Requests that name the model alone go here.", Kind.SWITCH),
    Flag("description", "description", "What it is for."),
    Flag("display-name", "displayName", "A name for people."),
    Flag("public", "public", "Let other accounts query it.", Kind.SWITCH),
)
_DEPLOY = (
    *_UPDATE,
    Flag("replace-merged-addon", "?replaceMergedAddon", "Take the place of the adapter there.", Kind.SWITCH),
)
# States in which the server may still get there: it says why it waits.
_PASSING = frozenset({"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED"})
# `deploy model X` is taken for `deploy X`: the word may stand there, as in every other command.
_Model = Annotated[list[str], typer.Argument(metavar="MODEL", help="The model's id or name.")]
_DEPLOYMENT = typer.Option(
    "--deployment-id", "--deployment", help="The deployment's id or name.", show_default=False
)


@command(
    "load-lora",
    "model",
    flags=_DEPLOY,
    alone=True,
    example="firectl load-lora my-adapter --deployment my-deployment --wait",
    see_also=("unload-lora", "create deployment", "list deployed-models"),
)
@command(
    "deploy",
    "model",
    flags=_DEPLOY,
    alone=True,
    example="firectl deploy my-adapter --deployment-id my-deployment --wait",
    see_also=("undeploy", "create deployment", "list deployed-models"),
)
def deploy(
    session: Session,
    model: _Model,
    fields: Fields,
    deployment_id: Annotated[str | None, _DEPLOYMENT] = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "30m",
) -> None:
    """Deploy a LoRA adapter on a deployment; without one the server decides where."""
    given = _one(model)
    body = {"model": session.name("model", given), **fields.body}
    if deployment_id:
        body["deployment"] = session.name("deployment", deployment_id)
    try:
        created = session.client.call("POST", session.parent("deployed-model"), query=fields.query, body=body)
    except ApiError as error:
        if not deployment_id and error.status == 400:
            error.advice += _ways_to_a_deployment(session, given)
        raise
    name = str(created.get("name", ""))
    if wait:
        created = _wait_deployed(session, name, wait_timeout)
    session.output.resource(created)
    if not wait:
        session.output.note(f"Watch it with: firectl get deployed-model {short_id(name)}")
    else:
        session.output.note(f"Ask it with: firectl chat {name}")


def _one(words: list[str]) -> str:
    """The one model that is meant."""
    given = words[1:] if len(words) > 1 and words[0] in spellings("model") else words
    if len(given) > 1:
        raise UsageError(f'one model at a time: what is "{given[1]}"?', advice=["firectl deploy --help"])
    return given[0]


def _ways_to_a_deployment(session: Session, model: str) -> list[str]:
    """What to type when no deployment was named: one that there is, or the command that makes one."""
    ways = ["firectl list deployments", f"firectl deploy {model} --deployment-id DEPLOYMENT"]
    try:
        details = session.get("model", model).get("peftDetails") or {}
    except CliError:
        return ways  # the refusal itself is what matters; it is told already
    base = details.get("baseModel") or model
    return [*ways, f"or make one: firectl create deployment {base} --enable-addons --wait"]


@command(
    "unload-lora",
    "model",
    alone=True,
    example="firectl unload-lora my-adapter --deployment my-deployment --wait",
    see_also=("load-lora", "list deployed-models"),
)
@command(
    "undeploy",
    "model",
    alone=True,
    example="firectl undeploy my-adapter --wait",
    see_also=("deploy", "list deployed-models"),
)
def undeploy(
    session: Session,
    model: _Model,
    deployment_id: Annotated[str | None, _DEPLOYMENT] = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "30m",
) -> None:
    """Take a model off its deployment."""
    deployed = _the_deployed_model(session, _one(model), deployment_id)
    name = session.name("deployed-model", deployed)
    session.client.call("DELETE", name)
    session.output.note(f"Undeploying {name}")
    if session.output.as_json:
        session.output.json({})
    if wait:
        watch = [f"firectl get deployed-model {short_id(name)}"]
        wait_for(session, name, _judge_gone, timeout=wait_timeout, lives_on=watch)


@command(
    "update",
    "deployed-model",
    flags=_UPDATE,
    example="firectl update deployed-model my-adapter-1a2b3c4d --default",
    see_also=("list deployed-models", "get deployed-model"),
)
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
    try:
        return wait_for(session, name, judge_deployed_model, timeout=timeout, lives_on=lives_on)
    except WaitFailed as failure:
        failure.advice += lives_on if failure.resource else ["firectl list deployed-models"]
        raise


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
    rows = [row for page, _token in pages for row in page if _is_meant(row, given, model)]
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


def _is_meant(row: Mapping[str, Any], given: str, model: str) -> bool:
    """Whether a deployed model is of this model, or has this id itself."""
    return row.get("model") == model or short_id(str(row.get("name", ""))) == given
