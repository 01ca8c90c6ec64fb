"""Which model is meant, and what to tell when it cannot answer."""

import re
from typing import Any
from urllib.parse import quote

from cli.connection.session import Session
from cli.errors import ApiError, CliError, UsageError
from cli.resources import short_id

_DEPLOYMENT = re.compile(r"accounts/[\w.-]+/deployments/[\w.-]+")
_UNKNOWN = "Model not found"


def identifier(session: Session, model: str, deployment: str | None) -> str:
    """What a request names: full names as they are, bare ids with the account that is meant."""
    if not model.strip():
        raise UsageError("which model?", advice=["firectl list models"])
    account_id = session.connection.account_id
    named = model if "/" in model or not account_id else f"{account_id}/{model}"
    if not deployment:
        return named
    if "#" in model:
        raise UsageError("the model's name says the deployment already; leave --deployment out")
    return f"{named}#{session.name('deployment', deployment)}"


def look_up(session: Session, model: str) -> dict[str, Any]:
    """What the server says of a model that can be asked."""
    try:
        return session.client.look(f"models/{quote(model)}")
    except ApiError as error:
        advise(session, error, model)
        raise


def advise(session: Session, error: ApiError, model: str) -> None:
    """Adds what to type next to a refusal of a question."""
    if error.status == 404 and error.message.startswith(_UNKNOWN):
        _explain_unknown(session, error, model)
    elif error.status == 404 and "conversation_config" in error.message:
        error.message = f"{model} has no chat template: it completes texts, it does not chat"
        error.advice.append(f'firectl complete {model} "TEXT"')
    elif error.status == 404:
        error.advice.append("models answer at the gateway: is that the address of FIREWORKS_BASE_URL?")
    elif error.code == "DEPLOYMENT_SCALING_UP":
        found = _DEPLOYMENT.search(error.message)
        error.advice.insert(0, f"firectl get deployment {found[0]}" if found else "firectl list deployments")
    elif error.status == 412:
        error.advice.append("firectl list deployed-models")


def _explain_unknown(session: Session, error: ApiError, model: str) -> None:
    """A model that is there but not served, or a name that is like another."""
    plain, _, deployment = model.partition("#")
    name = _model_name(session, plain)
    found = _found(session, name) if name else None
    if found is None:
        error.message = f"there is no model {plain} that you can ask"
        near = _near(session, plain)
        error.advice += [f"did you mean {', '.join(near)}?"] if near else []
        error.advice.append("firectl list models")
    elif served := [str(ref["deployment"]) for ref in found.get("deployedModelRefs") or []]:
        error.message = f"{name} cannot be asked" + (f" on {deployment}" if deployment else "")
        error.advice += [f"it is on {', '.join(served)}", f"firectl get model {name}"]
    else:
        error.message = f"{name} exists, but it is not deployed"
        error.advice.append(_deploying(name, found))


def _deploying(name: str, model: dict[str, Any]) -> str:
    if "ADDON" in str(model.get("kind")):
        return f"firectl deploy {name} --deployment DEPLOYMENT (of its base model; firectl list deployments)"
    return f"firectl create deployment {name} --wait"


def _model_name(session: Session, text: str) -> str:
    """The full name of the model that a text may mean; "" when it is something else's name."""
    parts = text.split("/")
    if len(parts) == 2:
        text = f"accounts/{parts[0]}/models/{parts[1]}"
    try:
        return session.name("model", text)
    except CliError:
        return ""


def _found(session: Session, name: str) -> dict[str, Any] | None:
    try:
        return session.client.look(name)
    except CliError:
        return None  # the question was whether it is there; why it cannot be seen is of no use


def _near(session: Session, text: str) -> list[str]:
    """Models like the one that was asked for: first those that can be asked now."""
    import difflib

    names = [str(card.get("id")) for card in _rows(session, "models", "data")]
    try:
        parent = session.parent("model")
    except CliError:
        parent = ""  # whose key it is, the control plane knows, which may be away
    names += [str(row.get("name")) for row in _rows(session, parent, "models")]
    by_id = {short_id(name): name.removeprefix(f"{parent}/") for name in reversed(names)}
    return [by_id[key] for key in difflib.get_close_matches(short_id(text), by_id, n=3)]


def _rows(session: Session, name: str, key: str) -> list[dict[str, Any]]:
    try:
        return (session.client.look(name).get(key) or []) if name else []
    except CliError:
        return []
