"""Models in other precisions, and models of the platform's account."""

from typing import Annotated

import typer

from cli.connection.session import Session
from cli.errors import ApiError, CliError
from cli.language.enums import near_values
from cli.language.flags import Wait, WaitTimeout
from cli.language.registry import command
from cli.resources import short_id
from cli.show.waiting import wait_for
from cli.transfer.uploading import judge_upload

_EXAMPLE = "firectl prepare-model my-model --wait"
_SEE_ALSO = ("get model", "create deployment")


@command("prepare-model", example=_EXAMPLE, see_also=_SEE_ALSO)
@command("prepare", "model", example=_EXAMPLE, see_also=_SEE_ALSO)
def prepare_model(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The model's id or name.")],
    precision: Annotated[
        str | None, typer.Option(help="The precision, such as FP16 or FP8; by default the model's own.")
    ] = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "30m",
) -> None:
    """Make sure that a model can be served in a precision."""
    if not precision:
        session.ask_account()
    name = session.name("model", id)
    precision = precision.upper() if precision else _own_precision(session, name)
    with near_values():
        session.client.call("POST", f"{name}:prepare", body={"precision": precision})
    if wait:
        watch = [f"firectl get model {name}"]
        model = wait_for(session, name, judge_upload, timeout=wait_timeout, lives_on=watch)
    else:
        model = session.client.get(name)
    session.output.resource(model)
    session.output.note(f"Serve it so: firectl create deployment {id} --precision {precision}")


def _own_precision(session: Session, name: str) -> str:
    # A dry run looks it up too: the request that it shows is made of it.
    model = session.client.look(name)
    precisions = model.get("supportedPrecisions") or []
    if not precisions:
        raise CliError(f"{name} has no precision yet: it is {model.get('state')}")
    return str(precisions[0])


@command(
    "import",
    "model",
    example="firectl import model llama-v3p1-8b-instruct --model-id my-llama",
    see_also=("create model", "create deployment"),
)
def import_model(
    session: Session,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The id or name of a model of the platform's account.")
    ],
    model_id: Annotated[str | None, typer.Option(help="The id that it gets; its own by default.")] = None,
) -> None:
    """Take over a model of the platform's account."""
    name = session.name("model", model_id or short_id(model))
    try:
        session.client.call("POST", f"{name}:import", body={})
    except ApiError as error:
        error.advice += [
            "a public model of another account needs no import, only its full name: "
            "firectl create deployment accounts/ACCOUNT/models/MODEL",
            f"or upload its files: firectl create model {short_id(name)} FOLDER",
        ]
        raise
    session.output.resource(session.client.get(name))
